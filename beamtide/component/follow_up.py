"""Tasks of one pipeline that follow from results of another: made of the same frames, for some of the indexes.

The pipeline that gets them has `source: {kind: submitted}`. Whoever submits to it covers every index of the scan, those that are
not to be computed with a reason (`void`), so that its product gets complete and its files say why something is not there.
Invariant: a task is a function of what it stands for, so submitting it twice changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from beamtide.config import settings, site
from beamtide.config.models import Deployment, PipelineConfig
from beamtide.errors import BadInput
from beamtide.messages.base import Digest, PipelineName
from beamtide.messages.tasks import InputFile, Need, Task
from beamtide.task_id import task_id


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What tasks of a pipeline need beside their frames."""

    pipeline: PipelineConfig
    settings: Digest
    upstream: Mapping[str, Digest]
    """The settings of the pipelines whose datasets it takes."""

    def task(self, of: Task, start: int, stop: int, void: str = "") -> Task:
        """Return the task for indexes `start <= index < stop`, which lie in those of another task.

        `void`: why nothing is to be computed for them; they become a hole with this reason.
        """
        if not of.start <= start < stop <= of.stop:
            raise ValueError(f"indexes {start} to {stop} are not inside those of {of.id}")
        wanted = (text.partition("/") for text in self.pipeline.inputs)
        return Task(
            id=task_id(of.scan, self.pipeline.pipeline, self.settings, start, stop),
            scan=of.scan,
            pipeline=PipelineName(self.pipeline.pipeline),
            modality=self.pipeline.modality,
            start=start,
            stop=stop,
            inputs=() if void else _frames(of, start, stop),
            settings=self.settings,
            needs=tuple(
                Need(pipeline=PipelineName(name), dataset=dataset, upto=stop, settings=self.upstream.get(name, Digest("")))
                for name, _, dataset in wanted
            ),
            void=void,
        )


def follow_up_of(deployment: Deployment, pipeline: str) -> FollowUp:
    """Return how tasks of a pipeline are made; reads its calibration files. BadInput: it is not there, or makes its own tasks."""
    check(deployment, pipeline)
    config = deployment.pipelines[pipeline]
    prepared = settings.document_for(config, site.shared_root(deployment), deployment.pipelines)
    return FollowUp(config, prepared.digest, prepared.document.upstream)


def check(deployment: Deployment, pipeline: str) -> None:
    """Raise BadInput if nobody can submit tasks to a pipeline."""
    if pipeline not in deployment.pipelines:
        raise BadInput(f"there is no pipeline {pipeline!r}; this site has: {', '.join(deployment.pipelines)}")
    if (kind := deployment.pipelines[pipeline].source.kind) != "submitted":
        raise BadInput(f"pipeline {pipeline} makes its tasks itself (source.kind: {kind}); set source: {{kind: submitted}} there")


def _frames(of: Task, start: int, stop: int) -> tuple[InputFile, ...]:
    """Return those frames of a task that belong to some of its indexes."""
    found, at = [], of.start
    for one in of.inputs:
        begin, end = max(start, at), min(stop, at + one.last - one.first)
        if begin < end:
            found.append(msgspec.structs.replace(one, first=one.first + begin - at, last=one.first + end - at))
        at += one.last - one.first
    return tuple(found)
