"""Live inputs: the inputs of a task that begins before its scan has ended; the worker looks for further frames itself.

Theory: usable are the indexes, from 0 on, whose frames exist and whose needs are complete. Rank 0 finds out how far that is and
tells the others, so that all ranks use the same. Nothing more will come when the scan has ended, every need is complete, and all
frames exist or no file has changed for `source.settle` seconds. Frames that never came are left out; per-index results are NaN
there.

Clock policy: durations from `beamtide.clock`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from beamtide import clock
from beamtide.config.models import Deployment, Roots, SourceConfig
from beamtide.errors import BadInput, NoAnswer
from beamtide.files.layout import laid_out
from beamtide.files.pieces import Piece, between, input_files, moved
from beamtide.files.row import FileFact
from beamtide.files.watch import FileWatch
from beamtide.files.ways import ScanPoints
from beamtide.formats.lazy import joined
from beamtide.machine import Arrays
from beamtide.messages.base import Digest, PipelineName
from beamtide.messages.metadata import Scans, ScansRequest, ScanState
from beamtide.messages.results import ListRequest, Products
from beamtide.messages.tasks import Task
from beamtide.pump import Caller
from cluster_side.modalities.base import Output, find_output
from cluster_side.modalities.context import Team
from cluster_side.worker.task import inputs

PAUSE = 0.25
PATIENCE = 5.0


class LiveNews(msgspec.Struct, frozen=True, array_like=True):
    """What rank 0 tells the others: the pieces whose inputs all exist now, and whether more will come."""

    pieces: tuple[Piece, ...]
    over: bool


@dataclass(frozen=True, slots=True)
class LiveState:
    """The state at one moment: the scan, its files, how far all needs are complete, whether no file changes any more."""

    state: ScanState
    facts: Sequence[FileFact]
    complete: int
    quiet: bool


def news_of(seen: LiveState, source: SourceConfig, planned: int, taken: Sequence[Piece]) -> LiveNews:
    """Return the usable pieces behind those that were taken, of a scan with so many indexes planned, and whether that is all.

    A file that would belong elsewhere by what is known now stays where it was taken, and nothing more is read.
    """
    points = min(seen.state.points, planned)
    lacking = sum(fact.frames for fact in seen.facts) < points or any(fact.trouble for fact in seen.facts)
    closed = seen.state.phase == "ended" and (seen.quiet or not lacking)
    pieces = laid_out(seen.facts, ScanPoints.of(points, seen.state.scan.shape), source, closed=closed).pieces
    had = taken[-1].stop if taken else 0
    if why := moved(_origins(pieces), dict(_origins(taken))):
        pieces = [Piece(0, points, trouble=why)] if closed else []
    usable = min(pieces[-1].stop if pieces else 0, seen.complete)
    return LiveNews(tuple(between(pieces, had, usable)), closed and usable == points)


def _origins(pieces: Sequence[Piece]) -> Iterator[tuple[str, int]]:
    """Yield files, each with the index of its frame 0."""
    return ((piece.path, piece.start - piece.first) for piece in pieces if not piece.trouble)


@dataclass(slots=True)
class LiveServices:
    """The services that are asked, and the connection."""

    caller: Caller
    metadata: str
    sink: str


@dataclass(slots=True)
class LiveInputs:
    """The inputs of one task, as far as they exist. Every method is called by all ranks, in the same order."""

    task: Task
    source: SourceConfig
    roots: Roots
    services: LiveServices
    team: Team
    watch: FileWatch
    over: bool = False
    """Whether nothing more will come."""
    units: dict[str, str] = field(default_factory=dict)
    """Of the datasets of other pipelines."""
    taken: list[Piece] = field(default_factory=list)
    parts: list[Arrays] = field(default_factory=list)
    ended_at: float | None = None

    @property
    def share(self) -> float:
        """Return the share of the planned scan that has been measured, from 0 to 1."""
        return self.taken[-1].stop / self.task.stop if self.taken else 0.0

    def begin(self) -> Arrays:
        """Wait for the first indexes, and return their arrays; BadInput if none will ever come."""
        while (arrays := self.more(PATIENCE)) is None:
            pass
        if not arrays:
            raise BadInput(f"scan {self.task.scan} has ended, and there is no frame of it below {self.roots.raw}")
        return arrays

    def more(self, wait: float) -> Arrays | None:
        """Return the arrays of all indexes so far once there are more, or will be no more of them; None after `wait` seconds."""
        own = msgspec.msgpack.encode(self._await(wait)) if self.team.rank == 0 else b""
        news = msgspec.msgpack.decode(self.team.told(own), type=LiveNews)
        self.over = news.over
        if not news.pieces and not news.over:
            return None
        for piece in news.pieces:
            self.taken.append(piece)
            if not piece.trouble:
                given = msgspec.structs.replace(self.task, inputs=input_files([piece], self.source))
                self.parts.append(self._read(given))
        return self._arrays()

    def _read(self, task: Task) -> Arrays:
        """Return the frames of a piece; LostFrames of it are told as what is wrong with the file."""
        found = inputs.read_files(task, self.roots)
        if found.lost:
            raise BadInput(found.lost[0].why)
        return found.arrays

    def placed(self, outputs: Arrays, declared: tuple[Output, ...]) -> Arrays:
        """Return a kernel's outputs with a row for every index of the task: NaN where no frame came."""
        rows, count = self._rows(), self.task.stop
        return {name: _spread(array, rows, count) if _per_index(name, declared) else array for name, array in outputs.items()}

    def _rows(self) -> NDArray[np.int64]:
        good = [np.arange(piece.start, piece.stop) for piece in self.taken if not piece.trouble]
        return np.concatenate(good) if good else np.empty(0, np.int64)

    def _arrays(self) -> Arrays:
        if not self.parts:
            return {}
        rows, so_far = self._rows(), msgspec.structs.replace(self.task, stop=self.taken[-1].stop)
        arrays = {name: joined([part[name] for part in self.parts]) for name in self.parts[0]}
        for need in self.task.needs:
            name = f"{need.pipeline}/{need.dataset}"
            self.units[name], values = inputs.fetch(so_far, need, self.services.caller, self.services.sink)
            arrays[name] = values[rows]
        return arrays

    def _await(self, wait: float) -> LiveNews:
        """Look until there are new inputs, for `wait` seconds at most; a service that does not answer has nothing new."""
        end = clock.monotonic() + wait
        while True:
            news = LiveNews((), False)
            with contextlib.suppress(NoAnswer):
                news = self._look(clock.monotonic())
            if news.pieces or news.over or clock.monotonic() >= end:
                return news
            clock.pause(PAUSE)

    def _look(self, now: float) -> LiveNews:
        ask = self.services.caller.ask
        known = ask(self.services.metadata, ScansRequest(scan=self.task.scan), Scans, patience=PATIENCE).scans
        if not known:
            raise BadInput(f"the metadata server does not know scan {self.task.scan}, so nobody can say when it ends")
        state = known[0]
        if state.phase == "ended" and self.ended_at is None:
            self.ended_at = now
        complete = [self._complete(*wanted) for wanted in {(need.pipeline, need.settings) for need in self.task.needs}]
        facts = self.watch.look(now)
        quiet = now - max(self.ended_at or now, self.watch.changed_at) >= self.source.settle
        seen = LiveState(state, facts, min(complete, default=self.task.stop), quiet)
        return news_of(seen, self.source, self.task.stop, self.taken)

    def _complete(self, pipeline: PipelineName, settings: Digest) -> int:
        """Return how far a pipeline's product with these settings ("": the newest) is complete."""
        question = ListRequest(scan=self.task.scan, pipeline=pipeline)
        found = self.services.caller.ask(self.services.sink, question, Products, patience=PATIENCE).products
        meant = [state for state in found if settings in ("", state.product.settings)]
        return max(meant, key=lambda state: state.version).complete if meant else 0


def live_inputs_of(task: Task, deployment: Deployment, caller: Caller, team: Team) -> LiveInputs | None:
    """Return the inputs of a task that begins before its scan has ended; None for one that has all of them."""
    source, roots, address = deployment.pipelines[task.pipeline].source, deployment.site.roots, deployment.address
    early = as_started(task) != task or any(need.upto < task.stop for need in task.needs)
    if source.begin_with is None or not early:  # also a task made before the pipeline file had begin_with
        return None
    services = LiveServices(caller, address("metadata"), address("sink"))
    return LiveInputs(task, source, roots, services, team, FileWatch(roots.raw, task.scan, source))


def as_started(task: Task) -> Task:
    """Return a task that began early, cut to the indexes whose frames it names."""
    given = sum(part.last - part.first for part in task.inputs)
    return msgspec.structs.replace(task, stop=task.start + given) if 0 < given < task.stop - task.start else task


def _per_index(name: str, declared: tuple[Output, ...]) -> bool:
    return find_output(declared, name).per == "index"


def _spread(array: NDArray[Any], rows: NDArray[np.int64], count: int) -> NDArray[Any]:
    whole = np.full((count, *array.shape[1:]), np.nan, np.result_type(array.dtype, np.float32))
    whole[rows] = array
    return whole
