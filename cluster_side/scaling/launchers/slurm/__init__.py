"""Jobs on a Slurm cluster, by its commands or by pyslurm."""
