"""The file source: watches running scans, makes tasks of complete files, and void tasks for indexes without frames.

A scan and pipeline is closed when every index has a frame, or when the scan has ended and its files have not changed for
`settle` seconds. Nothing is kept over a restart: the files are found again, and the distributor knows its tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from beamline_side.cores.task_plan import bound, contradiction, origins, plan, remarks, void_plan
from beamtide import clock
from beamtide.client.adoption import adopted
from beamtide.client.batching import portions
from beamtide.client.client import Client
from beamtide.component.heartbeat import ComponentHeartbeat
from beamtide.config.models import Deployment, PipelineConfig
from beamtide.errors import BadInput, NoAnswer
from beamtide.files.watch import FileWatch
from beamtide.messages.base import Digest, TaskId
from beamtide.messages.metadata import ScanState
from beamtide.messages.tasks import Task
from beamtide.pump import Caller
from beamtide.security.guard import identity_of

WAIT = 0.25
NO_SETTINGS = Digest("0" * 64)
log = structlog.get_logger().bind(component="source")


@dataclass(slots=True)
class _Watched:
    """One scan in one pipeline."""

    state: ScanState
    pipeline: PipelineConfig
    files: FileWatch
    settings: Digest | None = None
    upstream: dict[str, Digest] = field(default_factory=dict)
    """The settings digests of the pipelines whose datasets it takes."""
    trouble: str = ""
    submitted: set[TaskId] = field(default_factory=set)
    origins: dict[str, int] = field(default_factory=dict)
    """File -> the index of its frame 0, of all files that tasks were made of."""
    ended_at: float | None = None


@dataclass(slots=True)
class FileSource:
    """All scans that are watched; `step` checks each of them once."""

    deployment: Deployment
    client: Client
    watched: dict[tuple[str, str], _Watched] = field(default_factory=dict)
    version: int = 0
    tasks: int = 0
    remark: str = ""
    """What was odd about the last scan that ended."""

    def step(self) -> None:
        """Ask the metadata server for changes, look at the files, submit the tasks that are certain."""
        self._take_scans()
        for key, one in list(self.watched.items()):
            try:
                if self._advance(one):
                    del self.watched[key]
            except BadInput as error:  # the distributor refuses a task: go on with the others
                one.trouble = str(error)

    def progress(self) -> dict[str, float]:
        """Return the numbers to show."""
        return {"scans": len({scan for scan, _ in self.watched}), "tasks": self.tasks}

    def why(self) -> str:
        """Say what is wrong with a pipeline's settings, or with its files; else what was odd about the last scan."""
        found = ((scan, name, one.trouble or one.files.why()) for (scan, name), one in self.watched.items())
        return next((f"{name} of {scan}: {trouble}" for scan, name, trouble in found if trouble), self.remark)

    def _take_scans(self) -> None:
        news = self.client.changed_scans(self.version, WAIT)
        for changed in news.scans:
            known = self._is_watched(changed)
            if changed.phase == "ended" and not known and self._is_done(changed):
                continue
            state = changed if known else adopted(self.client, changed)
            self.remark = "" if state.phase == "running" else self.remark
            for name, pipeline in self._others_first():
                watch = FileWatch(self.deployment.site.roots.raw, state.scan.id, pipeline.source)
                one = self.watched.setdefault((state.scan.id, name), _Watched(state, pipeline, watch))
                if one.state.rounds != state.rounds:  # it is started over: these are tasks of another product
                    one.settings, one.submitted = None, set()
                one.state = state
        self.version = max(self.version, news.version)

    def _others_first(self) -> list[tuple[str, PipelineConfig]]:
        """Return the pipelines, first those that others submit to: their settings must be known before a result is there."""
        return sorted(self.deployment.pipelines.items(), key=lambda item: item[1].source.kind != "submitted")

    def _is_watched(self, state: ScanState) -> bool:
        return any(scan == state.scan.id for scan, _ in self.watched)

    def _is_done(self, state: ScanState) -> bool:
        """Whether the sink has a verdict for every index in every pipeline, so that nothing is left to submit."""
        found = {one.product.pipeline for one in self.client.products(state.scan.id) if one.complete >= state.points}
        return found >= {name for name, pipeline in self.deployment.pipelines.items() if pipeline.source.kind != "submitted"}

    def _advance(self, one: _Watched) -> bool:
        """Submit new tasks; return whether no more can come."""
        if one.state.phase == "announced":
            return False
        now = clock.monotonic()
        if one.state.phase == "ended" and one.ended_at is None:
            one.ended_at = now
        if one.pipeline.source.kind == "submitted":
            return self._settings(one) is not None or self._settled(one, now)
        if one.settings is None:
            one.settings = self._settings(one)
        if one.settings is None:
            return self._give_up(one, now)
        facts = one.files.look(now)
        frames = sum(fact.frames for fact in facts)
        all_there = frames >= one.state.points and not any(fact.trouble for fact in facts)
        complete = one.pipeline.source.kind == "scan" or all_there
        closed = one.state.phase == "ended" and (complete or self._settled(one, now))
        planned = plan(one.state, one.pipeline, one.settings, facts, closed=closed)
        if moved := contradiction(planned, one.origins):  # what has no task yet is lost, and nothing is put in another place
            self._note(one, moved)
            planned = void_plan(one.state, one.pipeline, one.settings, moved) if closed else []
        self._submit(one, planned)
        if closed and (said := remarks(one.state, one.pipeline.source, facts)):
            self._note(one, said)
        return closed

    def _note(self, one: _Watched, said: str) -> None:
        remark = f"{one.pipeline.pipeline} of {one.state.scan.id}: {said}"
        if self.remark != remark:
            log.warning("odd files", scan=one.state.scan.id, pipeline=one.pipeline.pipeline, reason=said)
        self.remark = remark

    def _settled(self, one: _Watched, now: float) -> bool:
        return one.ended_at is not None and now - max(one.ended_at, one.files.changed_at) >= one.pipeline.source.settle

    def _settings(self, one: _Watched) -> Digest | None:
        try:
            digest = self.client.put_settings(one.pipeline, one.state.rounds)
            one.upstream = self.client.settings(digest).upstream if one.pipeline.inputs else {}
        except BadInput as error:
            if not one.trouble:
                log.error("settings cannot be used", pipeline=one.pipeline.pipeline, reason=str(error))
            one.trouble = str(error)
            return None
        one.trouble = ""
        return digest

    def _give_up(self, one: _Watched, now: float) -> bool:
        """Submit void tasks for a scan that has ended but whose settings cannot be used, with that reason."""
        if not self._settled(one, now):
            return False
        self._submit(one, void_plan(one.state, one.pipeline, NO_SETTINGS, one.trouble))
        return True

    def _submit(self, one: _Watched, planned: list[Task]) -> None:
        new = [bound(task, one.upstream) for task in planned if task.id not in one.submitted]
        for portion in portions(new):  # one by one: what was taken before one found no room is not offered again
            self.client.submit(portion)
            one.submitted |= {task.id for task in portion}
            one.origins |= {path: origin for task in portion for path, origin in origins(task)}
            one.files.used |= {part.path for task in portion for part in task.inputs}
            self.tasks += len(portion)


def run(deployment: Deployment, stop: Callable[[], bool]) -> None:
    """Watch until told to stop; a service that does not answer is asked again."""
    with Client(deployment, role="component") as client, Caller(identity_of(deployment, "component")) as caller:
        source, presence, silent = FileSource(deployment, client), ComponentHeartbeat(deployment, "source", caller), ""
        while not stop():
            presence.beat(source.progress(), silent or source.why())
            try:
                source.step()
                silent = ""
            except NoAnswer as error:
                silent = str(error)
                log.warning("waits", reason=silent)
