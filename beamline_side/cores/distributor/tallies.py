"""How many tasks of each product were submitted, and how many have which verdict.

Theory: a table of known tasks in the spool makes submitting and closing idempotent. A task that is over and will not be retried
is known by its indexes alone (`finished_ranges`), so the table holds what is open or was abandoned, and stays small however long
a beamtime is. A tally per (scan, pipeline, settings) is kept in memory and on disk. `version` grows with every change, also over
restarts, and each scan remembers its last one. A task that was abandoned and retried is counted again when its next generation
has a verdict; older generations change nothing. One whose files came late is submitted in its next generation, and is open again.
No clock. Invariant: verdicts never outnumber tasks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from beamline_side.cores.distributor.finished_ranges import FinishedRanges
from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.base import Digest, PipelineName, ScanId, TaskId
from beamtide.messages.tasks import Closed, Tally, Task, TaskStatus

REASONS = 20


class KnownTask(msgspec.Struct, frozen=True, array_like=True):
    """A task that was submitted and is open, or was abandoned."""

    scan: ScanId
    pipeline: PipelineName
    settings: Digest
    start: int
    stop: int
    outcome: str = ""
    generation: int = 0


@dataclass(slots=True)
class Tallies:
    """The verdicts of all tasks."""

    shelf: Shelf
    version: int = 0
    _finished: FinishedRanges = field(init=False)
    _claimed: FinishedRanges = field(init=False)
    """The indexes that have a task, whatever became of it: no other task gets them."""
    _tallies: dict[tuple[ScanId, PipelineName, Digest], Tally] = field(default_factory=dict)
    _versions: dict[ScanId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._finished, self._claimed = FinishedRanges(self.shelf), FinishedRanges(self.shelf, "claimed")
        for _, body in self.shelf.rows("version"):
            self.version = msgspec.msgpack.decode(body, type=int)
        for _, body in self.shelf.rows("tally"):
            tally = msgspec.msgpack.decode(body, type=Tally)
            self._tallies[tally.scan, tally.pipeline, tally.settings] = tally
            self._versions[tally.scan] = self.version

    def knows(self, task: Task) -> bool:
        """Whether a task was submitted before, or its indexes have results of other tasks."""
        product = "/".join((task.scan, task.pipeline, task.settings))
        return self._known(task.id) is not None or self._finished.holds(product, task.start, task.stop)

    def reopens(self, task: Task) -> bool:
        """Whether a task is the next generation of one that was abandoned: its verdict will take the place of the first."""
        known = self._known(task.id)
        same = known is not None and (known.start, known.stop) == (task.start, task.stop)
        return known is not None and same and known.outcome == "abandoned" and task.generation > known.generation

    def reopen(self, tasks: Iterable[Task]) -> list[Effect]:
        """Count tasks as open that were abandoned."""
        effects: list[Effect] = []
        changed = {}
        for task in tasks:
            known = self._known(task.id)
            assert known is not None, "only what is known can be opened"
            key = (known.scan, known.pipeline, known.settings)
            changed[key] = self._tallies[key] = _uncounted(self._tallies[key], known)
            opened = msgspec.structs.replace(known, outcome="", generation=task.generation)
            effects.append(Keep("known", task.id, msgspec.msgpack.encode(opened)))
        return effects + self._changed(changed)

    def unclaimed(self, task: Task) -> list[tuple[int, int]]:
        """Return the indexes of a new task that no other task has, as ranges."""
        return self._claimed.free("/".join((task.scan, task.pipeline, task.settings)), task.start, task.stop)

    def submit(self, tasks: Iterable[Task]) -> list[Effect]:
        """Count new tasks."""
        tasks = tuple(tasks)
        effects = self._claimed.add(("/".join((one.scan, one.pipeline, one.settings)), one.start, one.stop) for one in tasks)
        counts: dict[tuple[ScanId, PipelineName, Digest], int] = {}
        for task in tasks:
            key = (task.scan, task.pipeline, task.settings)
            counts[key] = counts.get(key, 0) + 1
            effects.append(Keep("known", task.id, msgspec.msgpack.encode(KnownTask(*key, task.start, task.stop))))
        for key, count in counts.items():
            tally = self._tallies.get(key) or _empty(key)
            self._tallies[key] = msgspec.structs.replace(tally, submitted=tally.submitted + count)
        return effects + self._changed(counts)

    def close(self, verdicts: Iterable[Closed]) -> list[Effect]:
        """Count verdicts, each task once."""
        effects: list[Effect] = []
        over: list[tuple[str, int, int]] = []
        changed = {}
        for verdict in {verdict.task: verdict for verdict in verdicts}.values():
            known = self._known(verdict.task)
            if known is None or not _is_news(known, verdict):
                continue
            key = (known.scan, known.pipeline, known.settings)
            before = _uncounted(self._tallies[key], known) if known.outcome else self._tallies[key]
            changed[key] = self._tallies[key] = _count(before, known, verdict)
            if verdict.outcome != "abandoned":
                over.append(("/".join(key), known.start, known.stop))
                effects.append(Forget("known", verdict.task))
                continue
            closed = msgspec.structs.replace(known, outcome=verdict.outcome, generation=verdict.generation)
            effects.append(Keep("known", verdict.task, msgspec.msgpack.encode(closed)))
        return [*effects, *self._finished.add(over), *self._changed(changed)]

    def status(self, scan: ScanId) -> TaskStatus:
        """Return the tallies of a scan ("" = of all)."""
        return TaskStatus(
            tallies=tuple(tally for tally in self._tallies.values() if scan in ("", tally.scan)), version=self.version
        )

    def changed_after(self, scan: ScanId, version: int) -> bool:
        """Whether a scan ("" = any) changed after a version."""
        return (self._versions.get(scan, -1) if scan else self.version) > version

    def open_pipelines(self, scan: ScanId) -> set[PipelineName]:
        """Return the pipelines with open tasks of a scan, or abandoned ones, which may be retried at this moment."""
        found = (tally for tally in self._tallies.values() if tally.scan == scan)
        return {tally.pipeline for tally in found if _open(tally) or tally.abandoned}

    def progress(self) -> dict[str, float]:
        """Return the numbers to show."""
        submitted = sum(tally.submitted for tally in self._tallies.values())
        return {"submitted": submitted, "open": sum(map(_open, self._tallies.values()))}

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert all(_open(tally) >= 0 for tally in self._tallies.values()), "more verdicts than tasks"

    def _known(self, task: TaskId) -> KnownTask | None:
        try:
            return msgspec.msgpack.decode(self.shelf.read("known", task), type=KnownTask)
        except KeyError:
            return None

    def _changed(self, keys: Iterable[tuple[ScanId, PipelineName, Digest]]) -> list[Effect]:
        effects: list[Effect] = []
        for key in keys:
            self.version += 1
            self._versions[key[0]] = self.version
            effects.append(Keep("tally", "/".join(key), msgspec.msgpack.encode(self._tallies[key])))
        return [*effects, Keep("version", "version", msgspec.msgpack.encode(self.version))] if effects else []


def _empty(key: tuple[ScanId, PipelineName, Digest]) -> Tally:
    return Tally(scan=key[0], pipeline=key[1], settings=key[2], submitted=0, results=0, empty=0, abandoned=0)


def _open(tally: Tally) -> int:
    return tally.submitted - tally.results - tally.empty - tally.abandoned


def _is_news(known: KnownTask, verdict: Closed) -> bool:
    if not known.outcome:
        return verdict.generation >= known.generation
    return known.outcome == "abandoned" and verdict.generation > known.generation


def _uncounted(tally: Tally, known: KnownTask) -> Tally:
    """Uncount an abandoned task that was retried, and remove its reason."""
    reasons = tuple(reason for reason in tally.reasons if not reason.startswith(_range(known)))
    return msgspec.structs.replace(tally, abandoned=tally.abandoned - 1, reasons=reasons)


def _range(known: KnownTask) -> str:
    return f"indexes {known.start} to {known.stop - 1}: "


def _count(tally: Tally, known: KnownTask, verdict: Closed) -> Tally:
    match verdict.outcome:
        case "result":
            return msgspec.structs.replace(tally, results=tally.results + 1)
        case "empty":
            return msgspec.structs.replace(tally, empty=tally.empty + 1)
    reason = f"{_range(known)}{verdict.reason}"
    return msgspec.structs.replace(tally, abandoned=tally.abandoned + 1, reasons=(*tally.reasons, reason)[-REASONS:])
