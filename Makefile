# Every target creates .venv and installs what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

lock = $(BIN)/pip-compile --quiet --upgrade $(foreach extra,$(2),--extra $(extra)) --generate-hashes --allow-unsafe --strip-extras \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file containers/locks/$(1).lock pyproject.toml

.PHONY: demo slurm-demo test images soak sabotage lint proof bench diagrams locks clean
.DEFAULT_GOAL := help
help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.base: pyproject.toml
	@echo "Installing Beamtide into $(VENV) (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[maps,points,xrf]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "Installing what the tests need"
	@$(PIP) install --editable '.[dev]'
	@touch $@

demo: $(VENV)/.base  ## the main job on a simulated scan: files, tasks, workers, maps
	@$(BIN)/beamtide demo --folder demo

slurm-demo: $(VENV)/.base  ## the same on a real Slurm that is started on this machine (root on a Debian installs it)
	@$(BIN)/python -m tests.slurm.demo

# Tests of real processes race real time, and a machine may stall: what failed is repeated once, alone, and must pass then.
test: $(VENV)/.dev  ## all that this machine can run; says what it skipped and why, and which tests are flaky
	@$(BIN)/python tests/flaky.py '' '-m "long and not system" --timeout 600' '-m "long and system" -n 0 --timeout 600'

images: $(VENV)/.dev  ## build all images, also the large one for GPUs, and run jobs in them (about ten minutes the first time)
	@BEAMTIDE_TEST_GPU_IMAGE=yes $(BIN)/python -m pytest -m long -n 0 --timeout 600 tests/containers

soak: $(VENV)/.dev  ## kill 2,000 times under load, then watch memory and descriptors (about six minutes)
	@$(BIN)/python tests/faults/soak.py

sabotage: $(VENV)/.dev  ## break the code, one line at a time; every break must make a test fail
	@$(BIN)/python tests/sabotage/run.py

lint: $(VENV)/.dev  ## style, types and the import law
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

proof: $(VENV)/.dev  ## show that verdicts of ptychography tell right from wrong (about ten minutes; writes docs/proofs)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ptycho_verdicts

bench: $(VENV)/.dev  ## measure; ONLY=fabric|stream|results|start|elastic|xrf|xrd|ptycho|points for one of them
	@$(BIN)/python -m benchmarks $(ONLY)

diagrams: $(VENV)/.dev  ## draw the state diagrams of docs/states.md from the tables of the code
	@$(BIN)/python docs/diagrams.py

locks: $(VENV)/.dev  ## pin the versions of the images again (containers/locks)
	@$(PIP) install pip-tools
	@$(call lock,worker-cpu,points xrf xrd ptycho)
	@$(call lock,worker-gpu,points xrd ptycho gpu)
	@$(call lock,worker-mpi,points ptycho mpi) --unsafe-package mpich --no-allow-unsafe  # Open MPI comes with the image
	@$(call lock,beamline,maps points)

clean:  ## remove what was installed and what the demo wrote
	@rm -rf $(VENV) demo demo-slurm build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
