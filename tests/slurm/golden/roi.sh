#!/bin/bash
# Beamtide: a job of pipeline roi (roi), up to 120 tasks, 4 at once.
# Made from sbatch_templates; options are on the command line of sbatch, so there are no #SBATCH lines here.
set -eu
umask 027
ulimit -c 0
export OMP_NUM_THREADS=1
export TMPDIR="${TMPDIR:-/tmp}"
exec /opt/beamtide/bin/beamtide work -c '/gpfs/p06/site file.yaml' --pipeline xrf --slots 4
