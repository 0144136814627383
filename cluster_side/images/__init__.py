"""Container images of workers: how they are built, checked, and entered by a job."""
