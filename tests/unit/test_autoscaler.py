"""The autoscaler's core with buffers that we play and a batch system that obeys; its journal and its lock; what it proposes."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from beamtide.config.models import (
    CapsConfig,
    Deployment,
    JobConfig,
    PipelineConfig,
    Roots,
    ScalingConfig,
    SiteConfig,
    SourceConfig,
)
from beamtide.errors import BadInput
from beamtide.machine import Effect, Heard, Send, Tick, link
from beamtide.messages.base import Message, Ok, PipelineName, Refused, ScanId, Seconds
from beamtide.messages.metadata import Scan, Scans, ScansRequest, ScanState
from beamtide.messages.scaling import (
    BufferGauge,
    GaugeRequest,
    Jobs,
    JobsRequest,
    PipelineRequest,
    ScaleRequest,
    SorterGauge,
    StartStages,
)
from cluster_side.scaling import autoscaler
from cluster_side.scaling.jobs.batch_calls import Answered, BatchCall, Cancel, Look, Result, Submit
from cluster_side.scaling.launcher_thread import LauncherThread
from cluster_side.scaling.launchers.base import (
    JobListing,
    JobOrder,
    Launcher,
    Phase,
    Seen,
    Sighting,
    SubmitAnswer,
    Submitted,
    Unclear,
    Unseen,
)
from cluster_side.scaling.orders import order_for
from cluster_side.scaling.scaling_loop import ScalerMachine
from cluster_side.scaling.state_file import StateFile, peek


@dataclass
class Desk(Launcher):
    """A launcher whose jobs run until we end them."""

    orders: list[JobOrder] = field(default_factory=list)
    jobs: dict[str, Sighting] = field(default_factory=dict)
    beamtide = ("beamtide",)
    cpus_per_node = 4
    first_start = 3.0

    def submit(self, order: JobOrder) -> SubmitAnswer:
        self.orders.append(order)
        ids = tuple(f"{order.token}-{number}" for number in range(order.count))
        self.jobs |= {job: Sighting(job, order.token, Phase.RUNNING) for job in ids}
        return Submitted(ids)

    def look(self) -> JobListing:
        return Seen(dict(self.jobs))

    def cancel(self, ids: Sequence[str]) -> None:
        self.end(ids, Phase.ENDED)

    def render(self, order: JobOrder) -> str:
        return " ".join(order.argv)

    def problems(self, orders: Sequence[JobOrder]) -> tuple[str, ...]:
        return ()

    def end(self, ids: Sequence[str], phase: Phase) -> None:
        self.jobs |= {job: replace(self.jobs[job], phase=phase) for job in ids}

    def started(self) -> list[str]:
        return [order.pipeline for order in self.orders for _ in range(order.count)]


def deployment_in(folder: pathlib.Path, **caps: Any) -> Deployment:
    site = SiteConfig(
        site="test",
        roots=Roots(raw=folder, processed=folder),
        state=folder,
        scaling=ScalingConfig(caps=CapsConfig(**{"jobs": 4, "node_hours_per_day": 100} | caps)),
        pipelines=(),
    )
    source = SourceConfig(match="*")
    pipelines = {
        "xrf": PipelineConfig(pipeline="xrf", modality="xrf", source=source),
        "xrd": PipelineConfig(pipeline="xrd", modality="xrd", source=source, job=JobConfig(slots=2, tasks_per_job=1)),
    }
    return Deployment(site=site, pipelines=pipelines, file=folder / "site.yaml")


class Rig:
    """A core, its journal, and a desk that is always quick."""

    def __init__(self, folder: pathlib.Path, desk: Desk | None = None, rows: Any = None, **caps: Any) -> None:
        self.deployment, self.desk, self.now = deployment_in(folder, **caps), desk or Desk(), 0.0
        self.planner = autoscaler.planner_for(self.deployment, self.desk, rows or {}, "us", 1)
        self.machine = ScalerMachine(self.planner, 0.5, 5.0, lambda buy: order_for(self.deployment, self.desk, buy))
        self.kept: dict[tuple[str, str], Any] = {}
        self.done: list[BatchCall] = []

    def hear(self, message: Message, peer: bytes) -> list[Effect]:
        return self.machine.handle(Heard(peer, message, 7), Seconds(self.now))

    def gauge(
        self,
        name: str,
        ready: int,
        leased: int = 0,
        jobs: dict[str, tuple[int, int]] | None = None,
        starts: dict[str, StartStages] | None = None,
    ) -> None:
        zeros: Any = dict.fromkeys(("held", "idle", "oldest_wait", "arrival_rate", "done", "abandoned", "retried", "workers"), 0)
        told = BufferGauge(
            pipeline=PipelineName(name),
            ready=ready,
            leased=leased,
            service_time=2.0,
            jobs=jobs or {},
            starts=starts or {},
            **zeros,
        )
        self.hear(told, link(f"buffer.{name}"))

    def tick(self, seconds: float = 0.5) -> list[Effect]:
        self.now += seconds
        effects = self.machine.handle(Tick(), Seconds(self.now))
        self.kept |= self.machine.changes
        self.machine.kept()
        calls, self.machine.calls = self.machine.calls, []
        self.done += calls
        self.machine.took([result for call in calls if (result := self.run(call)) is not None], self.now)
        return effects

    def run(self, call: BatchCall) -> Result | None:
        match call:
            case Submit(order):
                assert ("order", order.token) in self.kept, "ordered before it was on disk"
                return Answered(order.token, self.desk.submit(order))
            case Look():
                return self.desk.look()
            case Cancel(ids):
                self.desk.cancel(ids)
        return None


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Rig:
    made = Rig(tmp_path)
    made.tick()
    return made


def test_jobs_stay_below_the_cap_and_are_shared(rig: Rig) -> None:
    rig.gauge("xrf", 100)
    rig.gauge("xrd", 100)
    for _ in range(3):
        rig.tick()
    assert sorted(rig.desk.started()) == ["xrd", "xrd", "xrf", "xrf"]
    assert {order.tasks for order in rig.desk.orders if order.pipeline == "xrd"} == {1}
    assert "cap" in rig.machine.why()
    assert rig.machine.progress()["jobs"] == 4.0


def test_no_job_is_started_while_results_have_no_room(rig: Rig) -> None:
    def results(full: str, name: str = "xrf") -> None:
        told = SorterGauge(pipeline=PipelineName(name), waiting=9, waiting_bytes=9 << 20, full=full)
        rig.hear(told, link(f"sorter.{name}"))

    results("9 MiB of results wait for the sink")
    rig.gauge("xrf", 100)
    rig.gauge("xrd", 1)
    asked = {one.peer for one in rig.tick() if isinstance(one, Send) and isinstance(one.message, GaugeRequest)}
    assert asked == {link("sorter.xrf"), link("sorter.xrd")}, "sorters are asked at every tick"
    assert set(rig.desk.started()) == {"xrd"}, "only the pipeline whose sorter is full stands still"
    assert "xrf: its results have no room, so nothing is started: 9 MiB of results wait" in rig.machine.why()
    results("")
    rig.gauge("xrf", 100)
    rig.tick()
    assert "xrf" in rig.desk.started()
    rig.hear(SorterGauge(pipeline=PipelineName("xrf"), waiting=0, waiting_bytes=0, full="no"), b"somebody")
    assert rig.planner.pipelines["xrf"].full == "", "only the sorter itself is believed"


def test_a_pipeline_without_room_leaves_the_cap_to_others(rig: Rig) -> None:
    told = SorterGauge(pipeline=PipelineName("xrf"), waiting=9, waiting_bytes=9 << 20, full="9 MiB of results wait for the sink")
    rig.hear(told, link("sorter.xrf"))
    rig.gauge("xrf", 100)
    rig.gauge("xrd", 100)
    for _ in range(3):
        rig.tick()
    assert rig.desk.started() == ["xrd"] * 4


def test_idle_jobs_give_their_place_to_a_pipeline_that_has_none(rig: Rig) -> None:
    """Jobs linger while a scan runs: without this a pipeline that wakes up late would wait until they leave."""
    rig.gauge("xrf", 100)
    rig.tick()
    idle = {one.job: (1, 0) for one in rig.desk.jobs.values()}
    assert len(idle) == 4
    rig.gauge("xrf", 0, jobs=idle)
    rig.tick()
    assert rig.planner.leaving("xrf") == (), "as long as nobody else needs the place"
    rig.gauge("xrf", 0, jobs=idle)
    rig.gauge("xrd", 2)
    rig.tick()
    assert rig.planner.leaving("xrf")


def test_an_order_is_one_call_with_everything_a_job_needs(rig: Rig) -> None:
    rig.gauge("xrf", 3)
    rig.tick()
    (order,) = rig.desk.orders
    assert (order.count, order.name, order.token) == (3, "beamtide-test-xrf", "us.1-1.1.xrf")
    words = " ".join(order.argv)
    assert words.startswith(f"beamtide work -c {rig.deployment.file} --pipeline xrf --slots 1 --tasks 14")
    assert "--walltime" in words
    assert (order.shape.cpus, order.shape.memory_mb) == (1, 2048)
    assert rig.planner.ledger.orders[order.token].cost == 0.25


def test_what_workers_tell_of_their_start_is_in_the_statistics(rig: Rig) -> None:
    rig.gauge("xrf", 2)
    rig.tick()
    rig.tick(4.0)
    first, second = (one.job for one in rig.desk.jobs.values())
    pipeline = rig.planner.pipelines["xrf"]
    told = StartStages(staging=0.5, image=0.25, imports=0.5, kernel=2.0)
    rig.gauge("xrf", 2, jobs={first: (1, 0)}, starts={first: told})
    assert pipeline.start() == pytest.approx(3.25, abs=0.8), "seen running for 4 s at most"
    rig.gauge("xrf", 2, jobs={first: (1, 0)}, starts={first: told})
    assert len(pipeline.stages) == 1, "a start is counted once, however often it is told"
    wild = StartStages(kernel=float("nan"))
    rig.gauge("xrf", 2, jobs={first: (1, 0), second: (1, 0)}, starts={first: told, second: wild})
    (asked,) = (one.message for one in rig.hear(JobsRequest(), b"me") if isinstance(one, Send))
    assert isinstance(asked, Jobs)
    (report,) = (one for one in asked.pipelines if one.pipeline == "xrf")
    assert report.stages == told, "what is no time at all would stay in the mean for ever"


def test_a_job_that_was_never_seen_running_has_the_start_that_its_worker_tells(rig: Rig) -> None:
    rig.gauge("xrf", 1)
    rig.tick()
    rig.desk.jobs = {job: replace(one, phase=Phase.PENDING) for job, one in rig.desk.jobs.items()}
    rig.tick(6.0)
    (job,) = (one.job for one in rig.desk.jobs.values())
    rig.gauge("xrf", 1, jobs={job: (0, 1)}, starts={job: StartStages(imports=1.0, kernel=0.5)})
    assert rig.planner.pipelines["xrf"].start() == 1.5


def test_a_jump_of_the_queue_is_answered_at_once(rig: Rig) -> None:
    rig.gauge("xrf", 2)
    rig.tick(0.001)
    assert rig.desk.started() == ["xrf", "xrf"]


def test_a_silent_buffer_gets_no_new_jobs(rig: Rig) -> None:
    rig.gauge("xrf", 5)
    rig.tick(6.0)
    assert not rig.desk.orders
    assert "does not answer" in rig.machine.why()


def test_nothing_is_ordered_before_the_jobs_are_known(tmp_path: pathlib.Path) -> None:
    rig = Rig(tmp_path)
    rig.machine.took([Unseen("squeue: timed out after 10 s")], 0.0)
    rig.gauge("xrf", 5)
    rig.machine.handle(Tick(), Seconds(0.1))
    assert rig.machine.calls == [Look()]
    assert "squeue: timed out" in rig.machine.why()


def test_jobs_that_fail_are_not_started_for_ever(rig: Rig) -> None:
    for _ in range(14):
        rig.gauge("xrf", 1)
        rig.tick()
        rig.desk.end(list(rig.desk.jobs), Phase.FAILED)
    assert len(rig.desk.started()) == 5
    assert "jobs ended before they worked" in rig.machine.why()


def test_strict_jobs_that_come_and_go_between_two_looks_are_no_failures(rig: Rig) -> None:
    for _ in range(20):
        rig.gauge("xrf", 1, jobs={one.job: (0, 0) for one in rig.desk.jobs.values()})
        rig.tick(1.0)
        rig.desk.end(list(rig.desk.jobs), Phase.ENDED)
    assert len(rig.desk.started()) > 9


def test_what_people_say_holds_and_is_on_disk_before_it_is_answered(rig: Rig) -> None:
    assert rig.hear(ScaleRequest(pipeline=PipelineName("xrf"), most=1), b"me") == []
    rig.tick(0.0)
    assert rig.kept["scale", "xrf"] == {"most": 1, "paused": False}
    assert Send(b"me", Ok(), 7) in rig.tick(0.0)
    rig.gauge("xrf", 100)
    rig.tick()
    rig.tick()
    assert rig.desk.started() == ["xrf"]
    rig.hear(ScaleRequest(pipeline=PipelineName("xrf"), paused=True), b"me")
    (job,) = rig.desk.jobs.values()
    rig.gauge("xrf", 100, 1, {job.job: (0, 1)})
    effects = rig.tick()
    asked = [
        one.message for one in (*effects, *rig.tick(3.0)) if isinstance(one, Send) and isinstance(one.message, PipelineRequest)
    ]
    assert any(question.leaving == (job.job,) for question in asked)
    assert "beamtide scale xrf --resume" in rig.machine.why()
    (refused,) = rig.hear(ScaleRequest(pipeline=PipelineName("nobody")), b"me")
    assert isinstance(refused, Send)
    assert isinstance(refused.message, Refused)


def test_an_announced_scan_has_jobs_before_it_begins(rig: Rig) -> None:
    rig.now = 10.0
    asked = [one.message for one in rig.tick() if isinstance(one, Send)]
    assert ScansRequest(after=0, wait=2.0) in asked
    scan = Scan(id=ScanId("s"), shape=(100, 10), period=0.1)
    state = ScanState(scan=scan, phase="announced", points=1000, version=4, starts_in=2.0)
    rig.hear(Scans(scans=(state,), version=4), link("metadata"))
    rig.gauge("xrf", 0)
    rig.tick()
    assert rig.desk.started() == ["xrf", "xrf"], "the prior cold start is 3 s: two lines are due by then"


def test_jobs_are_told_with_their_reasons(rig: Rig) -> None:
    rig.gauge("xrf", 2)
    rig.tick()
    rig.tick()
    (answer,) = rig.hear(JobsRequest(), b"me")
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Jobs)
    assert [(one.pipeline, one.state) for one in answer.message.jobs] == [("xrf", "starting")] * 2
    (xrf, _) = answer.message.pipelines
    assert (xrf.want, xrf.starting, xrf.working) == (2, 2, 0)
    assert (answer.message.launcher, answer.message.cap, answer.message.trouble) == ("local", 4, "")


@pytest.mark.parametrize(
    ("caps", "sentence"),
    [({"jobs": 0}, "scaling.caps.jobs is 0"), ({"node_hours_per_day": 0}, "the budget is spent: 0.0 of 0 node-hours")],
)
def test_no_cap_and_no_budget_are_sentences(tmp_path: pathlib.Path, caps: dict[str, int], sentence: str) -> None:
    rig = Rig(tmp_path, **caps)
    rig.tick()
    rig.gauge("xrf", 50)
    rig.tick()
    assert not rig.desk.orders
    assert sentence in rig.machine.why()


def test_a_new_autoscaler_adopts_by_token_what_the_old_one_ordered(tmp_path: pathlib.Path) -> None:
    first = Rig(tmp_path)
    first.tick()
    first.gauge("xrf", 3)
    first.tick()
    first.hear(ScaleRequest(pipeline=PipelineName("xrd"), paused=True), b"me")
    first.tick(0.0)
    state_file = StateFile(tmp_path / "j")
    state_file.keep(first.kept)
    state_file.close()
    second = Rig(tmp_path, first.desk, peek(tmp_path / "j"))
    second.gauge("xrf", 3)
    second.machine.handle(Tick(), Seconds(0.0))
    assert second.machine.calls == [Look()], "ordered before it looked"
    second.machine.calls = []
    second.machine.took([second.desk.look()], 0.0)
    second.tick()
    assert len(second.planner.ledger.jobs) == 3
    assert len(first.desk.orders) == 1
    assert second.planner.pipelines["xrd"].paused


def test_one_autoscaler_is_in_charge_and_each_has_the_next_number(tmp_path: pathlib.Path) -> None:
    first = StateFile(tmp_path)
    with pytest.raises(BadInput, match=r"another autoscaler is in charge \(process \d+ on .*stop it first"):
        StateFile(tmp_path)
    first.close()
    second = StateFile(tmp_path)
    assert (first.fence, second.fence) == (1, 2)
    second.close()


def test_a_journal_survives_a_torn_end_and_is_made_short_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster_side.scaling.state_file.MOST_LINES", 10)
    state_file = StateFile(tmp_path)
    for number in range(25):
        state_file.keep({("t", "k"): number, ("u", str(number)): {"a": [number]}, ("u", str(number - 1)): None})
    state_file.close()
    file = tmp_path / "journal.jsonl"
    assert len(file.read_bytes().splitlines()) < 20
    with file.open("ab") as end:
        end.write(b'0123456789abcdef ["t", "k", 7')
    again = StateFile(tmp_path)
    assert (again.table("t"), again.table("u")) == ({"k": 24}, {"24": {"a": [24]}})
    again.close()


def test_a_launcher_that_breaks_costs_no_thread_and_leaves_the_order_unclear() -> None:
    class Broken(Desk):
        def submit(self, order: JobOrder) -> SubmitAnswer:
            raise RuntimeError("kaboom")

    said: list[str] = []
    calls = LauncherThread(Broken(), said.append)
    calls.open()
    order = JobOrder("xrf", "xrf", "t", 1, 1, 1, None, "n", (), pathlib.Path())  # type: ignore[arg-type]
    for call in (Submit(order), Look()):
        calls.want(call)
    calls.close()
    answered, seen = calls.results()
    assert isinstance(answered, Answered)
    assert isinstance(answered.answer, Unclear)
    assert isinstance(seen, Seen)
    assert (said, calls.waiting) == (["RuntimeError: kaboom"], 0)


def test_a_proposal_shows_the_exact_command_and_starts_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setattr(autoscaler, "launcher_of", lambda deployment: desk)
    (one,) = autoscaler.propose(deployment_in(tmp_path), {"xrf": 200})
    assert one.order is not None
    assert (one.order.count, one.because) == (4, "wants 200 jobs, gets 4 of the cap (scaling.caps)")
    assert one.script == " ".join(one.order.argv)
    assert not desk.orders
    (nothing,) = autoscaler.propose(deployment_in(tmp_path, jobs=0), {"xrf": 200})
    assert nothing.order is None
    assert json.dumps(nothing.because)
