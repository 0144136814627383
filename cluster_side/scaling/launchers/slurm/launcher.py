"""The launcher for Slurm: where to submit, how often to look, what to believe.

Theory: an order is submitted at each place in turn (reservation, partitions, other clusters) until one accepts it; a refusal is
certain before the next is tried, so nothing is ever submitted twice. The queue is listed in one call for all our jobs, at most
every five seconds, and less often when Slurm is slow; in between the last listing is returned, the same object. While a call
takes long, `look` returns `Unseen` and does not block.

Clock policy: `beamtide.clock.monotonic`.
Invariants: at most one squeue at a time, and one per `slurm.look_every`; an order that does not fit into one array is denied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol

from pydantic import BaseModel

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.config.slurm import Slurm
from beamtide.errors import BadInput
from cluster_side.images import admission
from cluster_side.scaling.launchers import job_log
from cluster_side.scaling.launchers.base import (
    MOST_IN_ARRAY,
    Denied,
    EndCause,
    JobListing,
    JobOrder,
    Launcher,
    Seen,
    SubmitAnswer,
    Unseen,
    beamtide_command,
    job_name,
)
from cluster_side.scaling.launchers.slurm import options
from cluster_side.scaling.launchers.slurm.commands import Commands, Submission
from cluster_side.scaling.launchers.slurm.output import NodeKind
from cluster_side.scaling.launchers.slurm.script import render
from cluster_side.scaling.launchers.slurm.subprocess_calls import require
from cluster_side.scaling.launchers.slurm.vanished_jobs import VanishedJobs

SLOW = 1.0
"""Seconds after which `look` returns `Unseen` while a call is under way."""
RESPITE = 5
"""After a call that took t seconds the next one waits for so many times t, but for a minute at most."""
LONGEST_RESPITE = 60.0


class SlurmBackend(Protocol):
    """Submit, list and cancel, by commands or by pyslurm."""

    def submit(self, submission: Submission) -> SubmitAnswer:
        """Submit once."""
        ...

    def listing(self) -> JobListing | None:
        """Ask for all our jobs; None: no answer yet, ask again."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel these; do not wait."""
        ...


class SlurmLauncher(Launcher):
    """Jobs in Slurm."""

    settings: ClassVar[type[BaseModel]] = Slurm
    """The section `slurm` of the site file."""

    def __init__(self, deployment: Deployment) -> None:
        require()
        self._deployment, self._slurm = deployment, deployment.site.slurm
        names = [job_name(deployment, pipeline) for pipeline in deployment.pipelines]
        clusters = [place.cluster for place in options.places(self._slurm, 0) if place.cluster]
        self._commands = Commands(names, tuple(dict.fromkeys(clusters)), self._slurm.patience)
        self._backend = backend(self._slurm, self._commands, names)
        self._recall = VanishedJobs()
        self._last: JobListing = Unseen("Slurm has not been asked yet")
        self._next = 0.0
        self._bound: int | None = None
        self._asked: float | None = None
        self._said_last: dict[str, str] = {}
        """The last log lines of failed jobs, by id, while they are listed: a log is read once."""

    @property
    def beamtide(self) -> tuple[str, ...]:
        """The command of the site file, else that of the image, else the Python that runs here."""
        return self._slurm.beamtide or beamtide_command(self._deployment)

    @property
    def cpus_per_node(self) -> int:
        """CPUs of a node that jobs share; 0: whole nodes."""
        return 0 if self._slurm.whole_nodes else self._slurm.cpus_per_node

    def submit(self, order: JobOrder) -> SubmitAnswer:
        """Submit at each place in turn, until one accepts."""
        if order.count > (most := self._most_in_array()):
            return Denied(
                EndCause.LIMIT, f"{order.count} jobs are more than one array of this Slurm holds: {most} (MaxArraySize)"
            )
        try:
            submissions = self._submissions(order)
            (self._slurm.logs or order.logs).mkdir(parents=True, exist_ok=True, mode=0o750)
        except BadInput as error:
            return Denied(EndCause.RULES, str(error))
        except OSError as error:
            return Denied(EndCause.START, f"the folder for logs of jobs cannot be made: {error}")
        refusals = []
        for place, submission in submissions.items():
            answer = self._backend.submit(submission)
            if not isinstance(answer, Denied) or answer.cause is EndCause.DOWN:
                return answer
            refusals.append((place, answer))
        return _worst(refusals)

    def look(self) -> JobListing:
        """Return the last listing, or a new one when it is due."""
        now = clock.monotonic()
        if self._asked is None and now < self._next:
            return self._last
        if self._asked is None:
            self._asked = now
        listing = self._backend.listing()
        now = clock.monotonic()
        took = now - self._asked
        if listing is None:
            if took > SLOW:
                self._last = Unseen(f"Slurm has not answered for {took:.0f} s (squeue)")
            return self._last
        self._next = max(self._asked + self._slurm.look_every, now + min(LONGEST_RESPITE, RESPITE * took))
        self._asked = None
        if isinstance(listing, Seen):
            self._last = self._recall.judge(self._with_last_line(listing), now)
            self._most_in_array()  # asked for after the first good listing, so that no order waits for it
        else:
            self._last = listing
        if missing := self._recall.missing():
            self._recall.explain(self._commands.ends(missing), missing)
        return self._last

    def _with_last_line(self, seen: Seen) -> Seen:
        """Add the last log lines of failed jobs, where their logs can be read here."""
        folder, before = self._slurm.logs or self._deployment.site.state / "logs", self._said_last
        failed = {job: one for job, one in seen.jobs.items() if one.cause in (EndCause.START, EndCause.CODE)}
        self._said_last = {
            job: before[job] if job in before else job_log.last_line(self._deployment, folder, job) for job in failed
        }
        return Seen({**seen.jobs} | {job: replace(one, reason=self._said_last[job] or one.reason) for job, one in failed.items()})

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask these jobs to leave."""
        if ids:
            self._backend.cancel(ids)

    def render(self, order: JobOrder) -> str:
        """Return the script, with the call of sbatch as a comment below its first line."""
        place, submission = next(iter(self._submissions(order).items()))
        first, _, rest = submission.script.partition("\n")
        call = " \\\n#   ".join(("sbatch --parsable", *options.words(submission.options)))
        return f"{first}\n# for {place}:\n# {call}\n{rest}"

    def problems(self, orders: Sequence[JobOrder]) -> tuple[str, ...]:
        """Ask Slurm whether it would take such jobs; one sentence for each order that no place takes."""
        kinds = self._commands.nodes()
        said = {order.pipeline: self._problem(order, kinds) for order in orders}
        wrong = tuple(f"pipeline {pipeline}: {problem}" for pipeline, problem in said.items() if problem)
        return (*admission.problems(self._deployment, on_nodes=True), *wrong)

    def _problem(self, order: JobOrder, kinds: tuple[NodeKind, ...]) -> str:
        try:
            submissions = self._submissions(order)
        except BadInput as error:
            return str(error)
        refusals = {}
        for place, submission in submissions.items():
            said = _too_big(order, place, kinds) or self._commands.refusal(submission)
            if not said:
                return ""
            refusals[place] = said
        return "; ".join(f"{place}: {said}" for place, said in refusals.items())

    def _most_in_array(self) -> int:
        self._bound = self._bound or self._commands.array_bound()
        return min(MOST_IN_ARRAY, self._bound - 1) if self._bound else MOST_IN_ARRAY

    def _submissions(self, order: JobOrder) -> Mapping[options.Placement, Submission]:
        script = render(order, self._deployment)
        return {
            place: Submission(options.options(order, self._slurm, place), script, order.count)
            for place in options.places(self._slurm, order.shape.gpus)
        }


def backend(slurm: Slurm, commands: Commands, names: Sequence[str]) -> SlurmBackend:
    """Return what the site file asks for; the commands, with one sentence, where pyslurm does not load."""
    if slurm.backend == "commands":
        return commands
    from cluster_side.scaling.launchers.slurm import pyslurm_backend

    return pyslurm_backend.load(names, commands, several=slurm.cluster is not None) or commands


def _worst(refusals: Sequence[tuple[options.Placement, Denied]]) -> Denied:
    """Return the cause of all refusals: if any place refused because of a limit, the order may be repeated later."""
    limits = [answer for _, answer in refusals if answer.cause is EndCause.LIMIT]
    cause = limits[0].cause if limits else refusals[0][1].cause
    return Denied(cause, "; ".join(f"{place}: {answer.reason}" for place, answer in refusals))


def _too_big(order: JobOrder, place: options.Placement, kinds: tuple[NodeKind, ...]) -> str:
    """Say in numbers what no node of these partitions has; Slurm itself gives no numbers."""
    mine = [kind for kind in kinds if not place.cluster and (not place.partitions or kind.partition in place.partitions)]
    if not mine:
        return ""
    memory, cpus, shape = max(kind.memory_mb for kind in mine), max(kind.cpus for kind in mine), order.shape
    if shape.memory_mb > memory:
        return f"a job wants {shape.memory_mb} MiB on a node, the largest has {memory} MiB"
    if shape.cpus > cpus:
        return f"a job wants {shape.cpus} CPUs on a node, the largest has {cpus}"
    count = max(sum(kind.nodes for kind in mine if kind.partition == name) for name in {kind.partition for kind in mine})
    return f"a job wants {shape.nodes} nodes, there are {count}" if shape.nodes > count else ""
