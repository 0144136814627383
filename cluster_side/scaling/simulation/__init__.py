"""A beamline and a Slurm in virtual time: what a scaling policy would do, without a node."""
