"""Jobs of a Slurm cluster, by its commands or by pyslurm."""
