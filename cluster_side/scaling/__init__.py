"""From queues to jobs."""
