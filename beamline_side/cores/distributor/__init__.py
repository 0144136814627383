"""The task distributor: takes tasks in once, keeps them, and sends each to the buffer of its pipeline."""
