#!/bin/bash
# Beamtide: a job of pipeline ptychography (ptychography), up to 120 tasks, 4 at once.
# Made from sbatch_templates; options are on the command line of sbatch, so there are no #SBATCH lines here.
set -eu
umask 027
ulimit -c 0
export OMP_NUM_THREADS=1
export TMPDIR="${TMPDIR:-/tmp}"
if [[ -z "${CUDA_VISIBLE_DEVICES:-}" ]]; then
  echo "This job was given no GPU (CUDA_VISIBLE_DEVICES is not set): see slurm.gpus and slurm.gpu_constraint in the site file" >&2
  exit 126
fi
# srun starts the ranks; it passes signals on, and ends all ranks when one fails
export SLURM_EXPORT_ENV=ALL
exec srun --ntasks=4 --mpi=pmix --kill-on-bad-exit=1 bash -c '[[ -e /dev/nvidiactl ]] || { echo "beamtide job: this job wants a GPU, and node $(hostname) has no NVIDIA driver (no /dev/nvidiactl); look at slurm.gpu_partitions, or set job.gpus: 0" >&2; exit 69; }
exec /opt/beamtide/bin/beamtide work -c '"'"'/gpfs/p06/site file.yaml'"'"' --pipeline xrf --slots 4'
