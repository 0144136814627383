"""The autoscaler's decisions, with a batch system that obeys and gauges that we set."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from beamtide.config import Caps, Deployment, Job, PipelineConfig, Roots, Scaling, SiteConfig, Source
from beamtide.errors import NoAnswer
from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import BufferGauge
from cluster_side.scaling.autoscaler import Autoscaler
from cluster_side.scaling.launchers.base import JobOrder, Phase, Picture, Seen, Sighting, Submitted


@dataclass
class Desk:
    """A launcher whose jobs run until we end them."""

    orders: list[JobOrder] = field(default_factory=list)
    jobs: dict[str, Sighting] = field(default_factory=dict)
    beamtide = ("beamtide",)

    def submit(self, order: JobOrder) -> Submitted:
        self.orders.append(order)
        ids = tuple(f"{order.token}-{number}" for number in range(order.count))
        self.jobs |= {job: Sighting(job, order.token, Phase.RUNNING) for job in ids}
        return Submitted(ids)

    def look(self) -> Picture:
        return Seen(dict(self.jobs))

    def cancel(self, ids: Sequence[str]) -> None:
        self.end(ids, Phase.ENDED)

    def end(self, ids: Sequence[str], phase: Phase) -> None:
        self.jobs |= {job: replace(self.jobs[job], phase=phase) for job in ids}

    def started(self) -> list[str]:
        return [order.pipeline for order in self.orders for _ in range(order.count)]


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
        scaling=Scaling(caps=Caps(jobs=4, node_hours_per_day=100)),
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
    assert sorted(desk.started()) == ["xrd", "xrd", "xrf", "xrf"]
    assert {order.tasks for order in desk.orders if order.pipeline == "xrd"} == {1}
    assert "cap" in scaler.why()
    assert scaler.progress()["jobs"] == 4.0


def test_a_silent_buffer_gets_no_new_jobs(scaled: tuple[Autoscaler, Desk, Gauges]) -> None:
    scaler, desk, gauges = scaled
    gauges.now = {"xrf": (0, 0, 0)}
    scaler.step()
    assert not desk.orders
    assert "does not answer" in scaler.why()


def test_jobs_that_fail_are_not_started_for_ever(scaled: tuple[Autoscaler, Desk, Gauges]) -> None:
    scaler, desk, gauges = scaled
    gauges.now = {"xrf": (1, 0, 0), "xrd": (0, 0, 0)}
    for _ in range(20):
        scaler.step()
        desk.end(list(desk.jobs), Phase.FAILED)
    assert len(desk.started()) == 5
    assert "jobs failed" in scaler.why()
