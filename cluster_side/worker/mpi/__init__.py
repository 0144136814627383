"""A job of several MPI ranks that compute one task together."""
