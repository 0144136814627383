"""`beamtide.Client`: the public API of scripts and user interfaces. Thin: each method is one question to one service.

Every method may raise NoAnswer (the service does not answer) and BadInput (it refused, with its reason).
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
from numpy.typing import NDArray

from beamtide import clock
from beamtide.client import shown as products_shown
from beamtide.client.batching import batches, portions
from beamtide.config import settings, site
from beamtide.config.models import Deployment, PipelineConfig
from beamtide.errors import BadInput
from beamtide.messages import Message, Ok, metadata, results, scaling, tasks, topology
from beamtide.messages.base import Digest, PipelineName, ScanId, TaskId
from beamtide.messages.dead_letters import DeadLetter, DeadLetters, DeadListRequest, DropRequest, RetryRequest
from beamtide.messages.previews import Preview, PreviewRequest
from beamtide.pump import Answer, Caller
from beamtide.security.guard import identity_of
from beamtide.security.roles import Role


@dataclass(frozen=True, slots=True)
class FetchedArray:
    """Rows `start <= index < stop` of a dataset, with its header; rows of holes are NaN (0 for integers)."""

    values: NDArray[Any]
    header: results.DatasetHeader
    start: int
    stop: int
    holes: tuple[results.Hole, ...]


class Client:
    """Talks to a running Beamtide. Use it in a `with` block, in one thread."""

    def __init__(
        self,
        deployment: Deployment | pathlib.Path | str,
        patience: float = 10.0,
        role: Role = "user",
        caller: Caller | None = None,
    ) -> None:
        self.deployment = deployment if isinstance(deployment, Deployment) else site.load(pathlib.Path(deployment))
        self._caller, self._patience = caller or Caller(identity_of(self.deployment, role)), patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._caller.close()

    # scans

    def scan_announced(self, scan: metadata.Scan, in_seconds: float = 0.0) -> None:
        """Announce a scan, so that workers are ready when it starts."""
        self._ask("metadata", metadata.ScanAnnounced(scan=scan, in_seconds=in_seconds))

    def scan_started(self, scan: metadata.Scan) -> None:
        """Tell the metadata server that a scan runs."""
        self._ask("metadata", metadata.ScanStarted(scan=scan, at=clock.utc()))

    def scan_ended(self, scan: str, points: int = -1) -> None:
        """Tell the metadata server that a scan has ended, and with how many points (-1: as planned)."""
        self._ask("metadata", metadata.ScanEnded(scan=ScanId(scan), points=points, at=clock.utc()))

    def start_over(self, scan: str, rounds: Mapping[str, int]) -> None:
        """Have the products of a scan in these pipelines be those of this round from now on (pipeline -> round)."""
        self._ask("metadata", metadata.ReprocessRequest(scan=ScanId(scan), rounds=dict(rounds)))

    def scans(self, scan: str = "") -> tuple[metadata.ScanState, ...]:
        """Return one scan, or all."""
        return self._seek("metadata", metadata.ScansRequest(scan=ScanId(scan)), metadata.Scans).scans

    def changed_scans(self, after: int, wait: float) -> metadata.Scans:
        """Return the scans that changed after version `after`, as soon as there are some, or none after `wait` seconds."""
        question = metadata.ScansRequest(after=after, wait=wait)
        return self._caller.ask(self.deployment.address("metadata"), question, metadata.Scans, patience=wait + self._patience)

    # tasks

    def submit(self, new: Sequence[tasks.Task]) -> None:
        """Submit tasks to the distributor; returns once they are on its disk. NoAnswer: it has no room for more now.

        Tasks before the one that found no room are accepted; submitting them twice changes nothing.
        """
        for some in portions(new):
            self._ask("distributor", tasks.SubmitRequest(tasks=some))

    def origins(self, scan: str, pipeline: str, settings: Digest) -> Iterator[tasks.FileOrigin]:
        """Yield where the files were put of which tasks were made, as long as `forget_origins` was not called."""
        question = tasks.OriginsRequest(scan=ScanId(scan), pipeline=PipelineName(pipeline), settings=settings)
        more = True
        while more:
            found = self._seek("distributor", question, tasks.Origins)
            yield from found.files
            question, more = msgspec.structs.replace(question, page=question.page + 1), found.more

    def forget_origins(self, scan: str, pipeline: str, settings: Digest) -> None:
        """Say that no more tasks will be made of the files of a product."""
        wish = tasks.ForgetOriginsRequest(scan=ScanId(scan), pipeline=PipelineName(pipeline), settings=settings)
        self._ask("distributor", wish)

    def status(self, scan: str = "") -> tasks.TaskStatus:
        """Return the counts of the tasks of a scan (or of all scans)."""
        return self._seek("distributor", tasks.StatusRequest(scan=ScanId(scan)), tasks.TaskStatus)

    def watch(self, scan: str = "", wait: float = 10.0) -> Iterator[tasks.TaskStatus]:
        """Yield the task status now, and each time it changes."""
        after = -1
        while True:
            question = tasks.WatchTasksRequest(scan=ScanId(scan), after=after, wait=wait)
            status = self._caller.ask(
                self.deployment.address("distributor"), question, tasks.TaskStatus, patience=wait + self._patience
            )
            if status.version > after:
                yield status
                after = status.version

    def cancel(self, scan: str, pipeline: str = "", reason: str = "cancelled") -> None:
        """Abandon all open tasks of a scan, in one pipeline or in all."""
        self._ask("distributor", tasks.CancelRequest(scan=ScanId(scan), pipeline=PipelineName(pipeline), reason=reason))

    # dead letters

    def dead_letters(self, pipeline: str = "") -> tuple[DeadLetter, ...]:
        """Return the dead letters, newest first, without tracebacks; of one pipeline, or of all, one after the other."""
        found: list[DeadLetter] = []
        for name in self._pipelines(pipeline):
            known: dict[TaskId, DeadLetter] = {}
            skip, total = 0, 1
            while skip < total:
                page = self._letters(name, DeadListRequest(skip=skip))
                known |= {letter.task.id: letter for letter in page.letters}
                skip, total = skip + len(page.letters), page.total if page.letters else 0
            found += known.values()
        return tuple(found)

    def dead_letter(self, task: str) -> DeadLetter:
        """Return one dead letter, with its traceback."""
        for name in self._pipelines(""):
            if found := self._letters(name, DeadListRequest(task=TaskId(task))).letters:
                return found[0]
        raise BadInput(f"there is no dead letter {task!r}; see `beamtide dlq list`")

    def retry(self, letters: Sequence[DeadLetter]) -> None:
        """Retry dead letters; their results take the place of their holes."""
        for name, some in batches(letters):
            self._ask(f"buffer.{name}", RetryRequest(tasks=some))

    def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Delete dead letters; their holes stay."""
        for name, some in batches(letters):
            self._ask(f"buffer.{name}", DropRequest(tasks=some))

    # results

    def products(self, scan: str = "", pipeline: str = "") -> tuple[results.ProductState, ...]:
        """Return the products that exist."""
        question = results.ListRequest(scan=ScanId(scan), pipeline=PipelineName(pipeline))
        return self._seek("sink", question, results.Products).products

    def subscribe(self, scan: str = "", pipeline: str = "", wait: float = 10.0) -> Iterator[results.ProductState]:
        """Yield the latest state of every product, then each product that changes."""
        after = 0
        while True:
            question = results.WatchRequest(after=after, wait=wait, scan=ScanId(scan), pipeline=PipelineName(pipeline))
            answer = self._caller.ask(self.deployment.address("sink"), question, results.Products, patience=wait + self._patience)
            yield from answer.products
            after = answer.version

    def fetch(self, scan: str, dataset: str, start: int = 0, stop: int | None = None, settings: str = "") -> FetchedArray:
        """Return indexes `[start, stop)` of "pipeline/dataset" (default: all that is complete).

        `settings` is the digest of the product's settings; without it, the product is read that the pipeline file asks for now,
        and while there is none, the one that changed last.
        """
        pipeline, _, name = dataset.partition("/")
        found = [state for state in self.products(scan, pipeline) if settings in ("", state.product.settings)]
        if not found:
            made = f" with settings {settings[:8]}" if settings else ""
            raise BadInput(f"there are no results of pipeline {pipeline!r} for scan {scan!r}{made} yet")
        meant = self.shown(scan, found)[pipeline]
        end = meant.complete if stop is None else stop
        question = results.FetchRequest(product=meant.product, dataset=name, start=start, stop=end)
        answer, arrays = self._caller.converse(
            self.deployment.address("sink"), question, results.Fetched, patience=self._patience
        )
        return FetchedArray(arrays["data"], answer.header, answer.start, answer.stop, answer.holes)

    def tasks_of(self, product: results.Product) -> Iterator[tasks.Task]:
        """Yield the tasks of a product that have a verdict, in order of their indexes; none if its results are in files only."""
        start, more = 0, any(one.product == product and not one.filed for one in self.products(product.scan, product.pipeline))
        while more:
            question = results.ResultsRequest(product=product, start=start, bare=True)
            answer = self._seek("sink", question, results.Results)
            yield from (result.task for result in answer.results)
            start, more = answer.next, bool(answer.results)

    def preview(self, scan: str, pipeline: str, after: int = 0) -> tuple[Preview, Mapping[str, NDArray[Any]]]:
        """Return the preview of a running task, with its arrays (none: there is nothing newer than number `after`)."""
        return newest_preview(self._caller, self.deployment, scan, pipeline, after)

    # settings

    def shown(self, scan: str, products: Sequence[results.ProductState]) -> dict[str, results.ProductState]:
        """Return, of these products of a scan, the one of each pipeline that is shown: that of its present settings."""
        now = self.settings_now(scan) if products_shown.ambiguous(products) else {}
        return products_shown.shown(products, now)

    def settings_now(self, scan: str) -> dict[str, Digest]:
        """Return the digest of each pipeline's settings for a scan, as the files say them now; {} if they cannot be read."""
        known = next(iter(self.scans(scan)), None)
        try:
            return site.settings_of(self.deployment, known.rounds if known else {})
        except BadInput:
            return {}

    def put_settings(self, pipeline: PipelineConfig, rounds: Mapping[str, int] = settings.NO_ROUNDS) -> Digest:
        """Store a pipeline's settings and calibration files on the metadata server; return their digest.

        `rounds`: those of the scan that they are for.
        """
        prepared = settings.document_for(pipeline, site.shared_root(self.deployment), self.deployment.pipelines, rounds)
        for name, content in prepared.files.items():
            self._put(metadata.PutFileRequest(name=name, content=content))
        return self._put(metadata.PutSettingsRequest(document=prepared.document))

    def settings(self, digest: str) -> metadata.SettingsDocument:
        """Return the settings document with this digest."""
        return self._seek("metadata", metadata.GetSettingsRequest(digest=Digest(digest)), metadata.SettingsAnswer).document

    def settings_list(self, modality: str = "") -> tuple[tuple[Digest, metadata.SettingsDocument], ...]:
        """Return all settings documents, newest first."""
        return self._seek("metadata", metadata.ListSettingsRequest(modality=modality), metadata.SettingsList).documents

    def file(self, digest: str) -> bytes:
        """Return the calibration file with this digest."""
        return self._seek("metadata", metadata.GetFileRequest(digest=Digest(digest)), metadata.File).content

    # components

    def topology(self) -> tuple[topology.ComponentReport, ...]:
        """Return every component with its last known state."""
        return self._seek("topology", topology.TopologyRequest(), topology.Topology).components

    def gauge(self, pipeline: str) -> scaling.BufferGauge:
        """Return the gauge of a pipeline's buffer."""
        return self._seek(f"buffer.{pipeline}", scaling.GaugeRequest(), scaling.BufferGauge)

    def jobs(self) -> scaling.Jobs:
        """Return all jobs, and why there are that many."""
        return self._seek("autoscaler", scaling.JobsRequest(), scaling.Jobs)

    def scale(self, pipeline: str, most: int = -1, paused: bool = False) -> None:
        """Limit the jobs of a pipeline to `most` (-1: only the site's caps), or pause it."""
        self._ask("autoscaler", scaling.ScaleRequest(pipeline=PipelineName(pipeline), most=most, paused=paused))

    def _pipelines(self, only: str) -> list[str]:
        known = list(self.deployment.pipelines)
        if only and only not in known:
            raise BadInput(f"there is no pipeline {only!r}; this site has: {', '.join(known)}")
        return [only] if only else known

    def _letters(self, pipeline: str, question: DeadListRequest) -> DeadLetters:
        return self._caller.ask(self.deployment.address(f"buffer.{pipeline}"), question, DeadLetters, patience=self._patience)

    def _ask(self, component: str, message: Message) -> None:
        self._caller.ask(self.deployment.address(component), message, Ok, patience=self._patience)

    def _put(self, message: Message) -> Digest:
        return self._seek("metadata", message, metadata.Put).digest

    def _seek(self, component: str, question: Message, kind: type[Answer]) -> Answer:
        return self._caller.ask(self.deployment.address(component), question, kind, patience=self._patience)


def newest_preview(
    caller: Caller, deployment: Deployment, scan: str, pipeline: str, after: int = 0
) -> tuple[Preview, Mapping[str, NDArray[Any]]]:
    """Return the newest preview with its arrays (no arrays: nothing newer than number `after`)."""
    question = PreviewRequest(scan=ScanId(scan), pipeline=PipelineName(pipeline), after=after)
    return caller.converse(deployment.address("sink"), question, Preview, patience=10.0)
