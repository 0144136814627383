"""Container images of workers: how they are built, looked at, and entered by a job."""
