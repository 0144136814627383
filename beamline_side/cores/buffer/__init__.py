"""The buffer of a pipeline: queued tasks, leases, verdicts, and dead letters."""
