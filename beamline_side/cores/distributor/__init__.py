"""The task distributor: accepts each task once, keeps it, and sends it to the buffer of its pipeline."""
