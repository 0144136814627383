"""The autoscaler's decisions, with a batch system that obeys and gauges that we set."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from beamtide.config import Caps, Deployment, Job, PipelineConfig, Roots, Scaling, SiteConfig, Source
from beamtide.errors import NoAnswer
from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import BufferGauge
from cluster_side.scaling.autoscaler import Autoscaler
from cluster_side.scaling.launchers.base import JobPhase, JobSpec


@dataclass
class Desk:
    """A launcher whose jobs run until we end them."""

    specs: list[JobSpec] = field(default_factory=list)
    ended: dict[str, JobPhase] = field(default_factory=dict)

    def submit(self, specs: Sequence[JobSpec]) -> tuple[str, ...]:
        self.specs += specs
        return tuple(spec.token for spec in specs)

    def phases(self, ids: Sequence[str]) -> dict[str, JobPhase]:
        return {job: self.ended.get(job, JobPhase.RUNNING) for job in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        self.ended |= dict.fromkeys(ids, JobPhase.ENDED)


@dataclass
class Gauges:
    """Answers for the buffers; one that is not set does not answer."""

    now: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def ask(self, address: str, *_: Any, **__: Any) -> BufferGauge:
        name = address.rpartition(".")[2]
        if name not in self.now:
            raise NoAnswer("silence")
        ready, leased, workers = self.now[name]
        zeros: Any = dict.fromkeys(("held", "idle", "oldest_wait", "arrival_rate", "done", "abandoned", "retried"), 0)
        pipeline = PipelineName(name)
        return BufferGauge(pipeline=pipeline, ready=ready, leased=leased, workers=workers, service_time=2.0, **zeros)


@pytest.fixture
def scaled(tmp_path: pathlib.Path) -> tuple[Autoscaler, Desk, Gauges]:
    site = SiteConfig(
        site="test",
        roots=Roots(raw=tmp_path, processed=tmp_path),
        state=tmp_path,
        scaling=Scaling(caps=Caps(jobs=4)),
        pipelines=(),
    )
    source = Source(match="*")
    pipelines = {
        "xrf": PipelineConfig(pipeline="xrf", modality="xrf", source=source),
        "xrd": PipelineConfig(pipeline="xrd", modality="xrd", source=source, job=Job(slots=2, tasks_per_job=1)),
    }
    deployment = Deployment(site=site, pipelines=pipelines, file=tmp_path / "site.yaml")
    desk, gauges = Desk(), Gauges()
    return Autoscaler(deployment, desk, gauges), desk, gauges  # type: ignore[arg-type]


def test_jobs_stay_below_the_cap_and_are_shared(scaled: tuple[Autoscaler, Desk, Gauges]) -> None:
    scaler, desk, gauges = scaled
    gauges.now = {"xrf": (100, 0, 0), "xrd": (100, 0, 0)}
    for _ in range(3):
        scaler.step()
    assert sorted(spec.pipeline for spec in desk.specs) == ["xrd", "xrd", "xrf", "xrf"]
    assert {spec.tasks for spec in desk.specs if spec.pipeline == "xrd"} == {1}
    assert "cap" in scaler.why()
    assert scaler.progress()["jobs"] == 4.0


def test_a_silent_buffer_gets_no_new_jobs(scaled: tuple[Autoscaler, Desk, Gauges]) -> None:
    scaler, desk, gauges = scaled
    gauges.now = {"xrf": (0, 0, 0)}
    scaler.step()
    assert not desk.specs
    assert "does not answer" in scaler.why()


def test_jobs_that_fail_are_not_started_for_ever(scaled: tuple[Autoscaler, Desk, Gauges]) -> None:
    scaler, desk, gauges = scaled
    gauges.now = {"xrf": (1, 0, 0), "xrd": (0, 0, 0)}
    for _ in range(20):
        scaler.step()
        desk.ended = {spec.token: JobPhase.FAILED for spec in desk.specs}
    assert len(desk.specs) == 5
    assert "jobs failed" in scaler.why()
