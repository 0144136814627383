"""A simulated beamline and Slurm in virtual time, to try a scaling policy without a cluster."""
