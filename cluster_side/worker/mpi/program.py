"""A worker of several MPI ranks: rank 0 holds the lease and talks to the services, all ranks compute.

Every rank runs the same command, started by `mpiexec` or `srun --mpi=…`. Rank 0 takes one task and tells the others; each reads
the inputs itself, and they compute as a team. Only rank 0 stores, sends heartbeats and reports.
Theory of the end: when one rank dies, MPI ends all ranks, also rank 0, so the ranks cannot report it. So rank 0 has a witness, a
process that was forked before MPI began and runs in a session of its own. It reads what rank 0 reports, and when rank 0 ends
without a final report about its lease, it tells the buffer at once. If the batch system ends the witness too, the lease expires.
In both cases a late result has an old attempt, and changes nothing.

Clock policy: durations from `beamtide.clock`.
"""

import contextlib
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import msgspec
import structlog

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, BeamtideError
from beamtide.messages.tasks import Task
from beamtide.pump import Caller
from cluster_side.modalities.context import Context
from cluster_side.worker.job import allocation, start_times, worker_process
from cluster_side.worker.mpi.ranks import Ranks
from cluster_side.worker.task import one_task
from cluster_side.worker.task.work import End, Leave, Work

log = structlog.get_logger()
PATIENCE = 5.0
"""Seconds that rank 0 has to report an error, before another rank ends all of them."""
NUMBERS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
"""Environment variables in which a launcher tells a process its rank."""


def run(work: Work, ranks: int) -> int:
    """Run one rank of a job of `wanted` ranks: take one task together, and exit."""
    began = clock.monotonic()
    if _number() == 0:
        tell = _witness(work)
        signal.signal(signal.SIGTERM, _leave)
    else:
        tell = _say_nothing
    team = _team(ranks)
    try:
        if team.rank:
            return _follow(work, team)
        took = start_times.taken(os.environ, began)
        log.info("ready", job=work.job, ranks=team.size, **start_times.words(took))
        return _lead(replace(work, stages=took), team, tell)
    except Leave:
        pass
    team.give_up(0)
    return 0


def work_of(deployment: Deployment, pipeline: str, job: str, idle_exit: float) -> Work:
    """Return the `Work` of a rank; `job` "" is the batch system's name."""
    return Work(deployment, pipeline, job or allocation.job_name(os.environ, f"{platform.node()}-{os.getpid()}"), idle_exit)


def _lead(work: Work, team: Ranks, tell: Callable[[dict[str, Any]], None]) -> int:
    """Run rank 0: lease a task, tell the others, compute, store. Without a task, tell them so."""
    facts: list[dict[str, Any]] = []

    def call(task: Task) -> Context:
        team.told(msgspec.msgpack.encode(task))
        return Context(team, team.local_rank)

    def listen(fact: dict[str, Any]) -> None:
        facts.append(fact)
        tell(fact)

    code = one_task.run(replace(work, call=call), listen)
    if not any("leased" in fact for fact in facts):
        team.told(b"")
    elif facts[-1].get("said") not in ("done", "stale"):
        team.give_up(0)  # the others may be in the middle of a sum
    return code


def _follow(work: Work, team: Ranks) -> int:
    """Run another rank: compute the task that rank 0 has leased."""
    body = team.told(b"")
    if not body:
        return 0
    task = msgspec.msgpack.decode(body, type=Task)
    with Caller(work.identity) as caller:
        try:
            one_task.compute(replace(work, call=lambda _: Context(team, team.local_rank)), task, caller, [0.0])
        except Exception as error:
            _print(f"rank {team.rank} on {platform.node()}: {one_task.sentence(error)}")
            clock.pause(PATIENCE)
            team.give_up(1)
    return 0


def _team(wanted: int) -> Ranks:
    """Return the ranks of this job; BadInput when they are not as many as the pipeline wants."""
    try:
        team = Ranks()
    except (ImportError, RuntimeError) as error:
        raise BadInput(
            f"job.ranks is {wanted}, but MPI cannot start here ({' '.join(str(error).split())}): install 'beamtide[mpi]', or "
            "use an image of kind worker-mpi"
        ) from error
    if team.size == wanted:
        return team
    why = (
        "processes were started without MPI, or by another MPI than that of mpi4py (`beamtide image check --mpi`)"
        if team.size == 1
        else "the batch system gave another number of slots"
    )
    raise BadInput(f"job.ranks is {wanted}, but this MPI program has {team.size}: {why}; no task was taken")


def _witness(work: Work) -> Callable[[dict[str, Any]], None]:
    """Fork the witness, and return how to tell it a fact."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        os.close(writing)
        _watch(work, reading)
    os.close(reading)
    return lambda fact: _write(writing, worker_process.line(fact))


def _watch(work: Work, reading: int) -> NoReturn:
    """Run the witness: read until rank 0 is gone, then report a lease that it left open."""
    code = 0
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with os.fdopen(reading) as facts:
            known = [json.loads(text) for text in facts]
        lease = next((fact for fact in known if "leased" in fact), None)
        if lease is not None and not known[-1].get("said"):
            reason = "its MPI program ended in the middle of the task: a rank died, or was killed; see the log of the job"
            with Caller(work.identity) as caller:
                one_task.report_failure(work, caller, (lease["leased"], lease["attempt"], lease["worker"]), End("infra", reason))
    except BeamtideError as error:
        _print(f"beamtide work: the loss of a task could not be reported ({error}); its lease will expire")
        code = 4
    finally:
        os._exit(code)


def _write(pipe: int, text: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, text)


def _number() -> int:
    return next((int(os.environ[name]) for name in NUMBERS if name in os.environ), 0)


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: handing back must not be interrupted
    raise Leave


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _say_nothing(fact: dict[str, Any]) -> None:
    """Do nothing: only rank 0 reports."""
