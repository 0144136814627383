"""The cluster side's commands: `work` is what a job runs, `rerun` reruns a bundle; `commands_scaling` has those for scaling."""

import functools
import os
import pathlib
import sys
from typing import Annotated, NoReturn

import typer

from beamtide.cli.screen import DEFAULT_SITE, Json, JsonLog, SiteFile, answer, complain, log_line, log_lines
from beamtide.config import site
from beamtide.errors import BadInput
from cluster_side import commands_scaling


def add_to(app: typer.Typer) -> None:
    """Add our commands."""
    app.command(rich_help_panel="Serve")(work)
    app.command(rich_help_panel="Tell")(rerun)
    commands_scaling.add_to(app)


def work(  # noqa: PLR0913, PLR0917  one argument per option
    config: SiteFile = DEFAULT_SITE,
    pipeline: Annotated[str, typer.Option(help="Whose tasks to work on.")] = "",
    slots: Annotated[int, typer.Option(min=1, help="Workers at once; as many as fit where Slurm gives more room.")] = 1,
    tasks: Annotated[int, typer.Option(min=0, help="End after this many tasks (0: when idle).")] = 0,
    job: Annotated[str, typer.Option(help="The name of this job (default: the batch system's).")] = "",
    idle_exit: Annotated[float, typer.Option(min=0, help="End after this many seconds without a task.")] = 5.0,
    walltime: Annotated[
        float, typer.Option(min=0, help="The job's time in seconds: take no task that needs more than is left.")
    ] = 0.0,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of one worker.")] = 1,
    memory: Annotated[int, typer.Option(min=0, help="Memory of one worker in MiB (0: as much as there is).")] = 0,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of one worker.")] = 0,
    as_json: JsonLog = False,
) -> None:
    """Run a job: fork workers that take one task each."""
    _limit_threads(cpus)
    if not pipeline:
        raise BadInput("say whose tasks to work on: --pipeline NAME")
    from cluster_side.worker.job import job as whole_job  # after `_limit_threads`
    from cluster_side.worker.job.allocation import SlotNeeds

    deployment = site.load(config)
    if pipeline in deployment.pipelines and (ranks := deployment.pipelines[pipeline].job.ranks) > 1:
        from cluster_side.worker.mpi import program

        log_lines(as_json=as_json)
        raise SystemExit(program.run(program.work_of(deployment, pipeline, job, idle_exit), ranks))
    commands_scaling.live_with_parent()
    wish = whole_job.JobOptions(pipeline, slots, tasks, job, idle_exit, walltime, SlotNeeds(cpus, memory, gpus))
    end = whole_job.run(deployment, wish, functools.partial(log_line, as_json=as_json))
    if end.reason:
        print(f"beamtide work: {end.reason}", file=sys.stderr)  # noqa: T201
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code)  # nothing is open any more; a normal exit takes 0.2 s, in which the job would hold its node


def rerun(
    file: Annotated[pathlib.Path, typer.Argument(help="A bundle (`beamtide dlq export`): a zip file or a folder.")],
    raw: Annotated[pathlib.Path | None, typer.Option(help="The folder of the input files, if the bundle has no copies.")] = None,
    as_json: Json = False,
) -> NoReturn:
    """Rerun a failed task from its bundle, here and without any service; nothing is stored. Exit code 1: it fails here, too."""
    _limit_threads(1)
    from cluster_side.worker.task import rerun_bundle

    code, text = rerun_bundle.run(file, raw)
    if code and not as_json:
        complain(text)
    else:
        answer({"file": str(file), "works": not code, "said": text}, [text], as_json=as_json)
    raise SystemExit(code)


def _limit_threads(cpus: int) -> None:
    """Keep libraries to the CPUs of one worker; before NumPy is imported, which reads this once."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(cpus))
