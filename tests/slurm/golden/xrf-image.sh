#!/bin/bash
# Beamtide: a job of pipeline xrf (xrf), up to 120 tasks, 4 at once.
# Made from sbatch_templates; options are on the command line of sbatch, so there are no #SBATCH lines here.
set -eu
umask 027
ulimit -c 0
export OMP_NUM_THREADS=1
export TMPDIR="${TMPDIR:-/tmp}"
export MPLBACKEND=Agg  # PyMca loads matplotlib; nodes have no screen
BEAMTIDE_BEGAN=$(date +%s.%N)
# How a job gets into its image: functions for the batch script, which calls `beamtide_enter` last.
# Exit code 69: the node could not start the image, and nothing of the work was touched. Everything said goes to the job's log.

beamtide_stop() { echo "beamtide job: $1 (node $(hostname))" >&2; exit 69; }

# Look for the container program first: what else goes wrong without it would be told in other words.
#   beamtide_need PROGRAM
beamtide_need() {
  command -v "$1" >/dev/null || beamtide_stop "there is no $1 here; load its module, or set container.runtime: none"
}

# Copy the image to this node, once for all jobs here, and believe it only when its digest is right.
# Unpacked it starts sooner: a folder's files stay in the memory of the node, those of an image are read and decompressed by every job.
#   beamtide_stage IMAGE SHA256 FOLDER PROGRAM file|folder   -> sets beamtide_image
beamtide_stage() {
  local copy="$3/$2.sif"
  # shellcheck disable=SC2174  # the folders above are the site's
  mkdir -p -m 700 "$3" || beamtide_stop "cannot make the folder $3 for the image; set container.stage to a node-local folder"
  exec 8>"$3/lock" && flock 8 || beamtide_stop "cannot lock $3/lock"
  [[ $5 == folder ]] && copy="$3/$2"
  if [[ ! -e $copy.ok ]]; then
    sleep "0.$((RANDOM % 10))"  # many nodes start together, and all read the same file
    cp "$1" "$copy.part" || beamtide_stop "cannot copy $1 to $3; is there room, and can this node read it?"
    [[ $(sha256sum <"$copy.part") == "$2 "* ]] || { rm -f "$copy.part"; beamtide_stop "$1 has not the digest that the site file pins"; }
    if [[ $5 == folder ]]; then
      beamtide_try "cannot unpack $1 in $3; is there room for three times its size?" "$4" build --force --sandbox "$copy" "$copy.part"
      rm -f "$copy.part"
    else
      mv "$copy.part" "$copy"
    fi
    beamtide_try "$1 does not start here" "$4" exec --no-home "$copy" true
    : >"$copy.ok"
  fi
  exec 8>&-
  beamtide_image=$copy
}

# Run a command of the container program, once more if it fails; else end with a sentence and its last line, without colours.
#   beamtide_try SENTENCE COMMAND…
beamtide_try() {
  local said sentence=$1
  shift
  said=$("$@" 2>&1) || { sleep 1; said=$("$@" 2>&1); } ||
    beamtide_stop "$sentence: $(sed -n 's/\x1b\[[0-9;]*m//g; /./h; ${x; p}' <<<"$said")"
}

# Let the worker see a folder of this node.
#   beamtide_bind NODE INSIDE ro|rw needed|optional   -> adds to beamtide_binds
beamtide_binds=()
beamtide_bind() {
  local name=$1
  [[ $1 == "$2" ]] || name="$1 (which stands for $2)"
  if [[ -r $1 && $3 == rw && ! -w $1 ]]; then
    beamtide_stop "cannot write to $name; is it mounted read-only, or not this user's? Look at state and container.nodes in the site file"
  elif [[ -r $1 ]]; then
    beamtide_binds+=(--bind "$1:$2:$3")
  elif [[ $4 == needed ]]; then
    beamtide_stop "cannot read $name; look at roots and container.nodes in the site file"
  fi
}

# Become the command in the image. What the batch system and MPI tell us goes in; nothing else of this environment does.
#   beamtide_enter PROGRAM exec OPTION… IMAGE COMMAND…
beamtide_enter() {
  local name prefix=APPTAINERENV_
  [[ $1 == singularity ]] && prefix=SINGULARITYENV_
  for name in $(compgen -e); do
    case $name in
      SLURM_* | PMI_* | PMI2_* | PMIX_* | OMPI_* | MPICH_* | CUDA_VISIBLE_DEVICES | BEAMTIDE_*) export "$prefix$name=${!name}" ;;
    esac
  done
  if [[ -n ${BEAMTIDE_PARENT:-} ]]; then  # a job that must not outlive who started it: we die with that, the worker with us
    export "${prefix}BEAMTIDE_PARENT=$$"
    set -- setpriv --pdeathsig TERM "$@"
  fi
  exec "$@"
}

umask 0027
beamtide_need apptainer
beamtide_image=/gpfs/p06/worker-cpu.sif
beamtide_bind /gpfs/p06 /gpfs/p06 ro needed
beamtide_bind /gpfs/p06/processed /gpfs/p06/processed ro optional
beamtide_bind /gpfs/p06/raw /gpfs/p06/raw ro needed
beamtide_bind /gpfs/p06/state /gpfs/p06/state rw needed
BEAMTIDE_ENTERED=$(date +%s.%N)
export BEAMTIDE_BEGAN BEAMTIDE_ENTERED BEAMTIDE_IMAGE=unpinned
beamtide_enter apptainer exec --no-home --no-mount cwd --pwd / --cleanenv "${beamtide_binds[@]}" "$beamtide_image" /opt/beamtide/bin/beamtide work -c '/gpfs/p06/site file.yaml' --pipeline xrf --slots 4
