"""The autoscaler: from queues to jobs."""
