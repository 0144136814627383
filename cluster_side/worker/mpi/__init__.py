"""A job of several ranks that compute one task together."""
