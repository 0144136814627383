"""The autoscaler's core with buffers that we play and a batch system that obeys; its journal and its lock; what it proposes."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from beamtide.config.models import (
    Deployment,
)
from beamtide.errors import BadInput
from beamtide.machine import Call, Effect, Event, Forget, Heard, Keep, Returned, Send, Tick, link
from beamtide.messages.base import Message, Ok, PipelineName, Refused, Seconds
from beamtide.messages.metadata import Scans, ScansRequest
from beamtide.messages.scaling import (
    GaugeRequest,
    Jobs,
    JobsRequest,
    PipelineRequest,
    ScaleRequest,
    SorterGauge,
    StartStages,
)
from cluster_side.scaling import autoscaler
from cluster_side.scaling.jobs.batch_calls import Answered, Look, Looked, Start, Withdraw
from cluster_side.scaling.jobs.states import Order
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
from tests.builders.gauges import make_gauge
from tests.builders.scans import make_scan, make_state
from tests.builders.sites import make_pipeline, make_site


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
    xrd = make_pipeline("xrd", job={"slots": 2, "tasks_per_job": 1})
    return make_site(folder, make_pipeline("xrf"), xrd, scaling={"caps": {"jobs": 4, "node_hours_per_day": 100} | caps})


class Rig:
    """A core, its journal, and a desk that is always quick."""

    def __init__(self, folder: pathlib.Path, desk: Desk | None = None, rows: Any = None, **caps: Any) -> None:
        self.deployment, self.desk, self.now = deployment_in(folder, **caps), desk or Desk(), 0.0
        self.planner = autoscaler.planner_for(self.deployment, self.desk, rows or {}, "us", 1)
        self.machine = ScalerMachine(self.planner, 0.5, 5.0)
        self.kept: dict[tuple[str, str], bytes] = {(table, key): row for table in rows or {} for key, row in rows[table].items()}

    def handle(self, event: Event) -> list[Effect]:
        """Let the core handle an event, and do the rest as the pump does: keep first, call then, tell it what came back."""
        effects = self.machine.handle(event, Seconds(self.now))
        for one in effects:
            if isinstance(one, Keep):
                assert isinstance(one.body, bytes)
                self.kept[one.table, one.key] = one.body
            elif isinstance(one, Forget):
                del self.kept[one.table, one.key]
        for one in effects:
            if isinstance(one, Call) and (result := self.run(one)) is not None:
                self.handle(result)
        assert {key for table, key in self.kept if table == "order"} == self.planner.ledger.orders.keys()
        return effects

    def hear(self, message: Message, peer: bytes) -> list[Effect]:
        return self.handle(Heard(peer, message, 7))

    def gauge(self, name: str, ready: int, **more: Any) -> None:
        self.hear(make_gauge(name, ready, **more), link(f"buffer.{name}"))

    def tick(self, seconds: float = 0.5) -> list[Effect]:
        self.now += seconds
        return self.handle(Tick())

    def run(self, call: Call) -> Returned | None:
        match call:
            case Start(order):
                assert ("order", order.token) in self.kept, "ordered before it was on disk"
                return Answered(order.token, self.desk.submit(order_for(self.deployment, self.desk, call)))
            case Look():
                return Looked(self.desk.look())
            case Withdraw(ids):
                self.desk.cancel(ids)
        return None


def calls_of(effects: list[Effect]) -> list[Effect]:
    return [one for one in effects if isinstance(one, Call)]


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
    assert "xrf: there is no room for its results, so nothing is started: 9 MiB of results wait" in rig.machine.why()
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
    rig.handle(Looked(Unseen("squeue: timed out after 10 s")))
    rig.gauge("xrf", 5)
    assert calls_of(rig.machine.handle(Tick(), Seconds(0.1))) == [Look()]
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
    kept, answer = rig.hear(ScaleRequest(pipeline=PipelineName("xrf"), most=1), b"me")
    assert kept == Keep("scale", "xrf", b'{"most": 1, "paused": false}'), "in the batch of its answer, so before it"
    assert answer == Send(b"me", Ok(), 7)
    rig.gauge("xrf", 100)
    rig.tick()
    rig.tick()
    assert rig.desk.started() == ["xrf"]
    rig.hear(ScaleRequest(pipeline=PipelineName("xrf"), paused=True), b"me")
    (job,) = rig.desk.jobs.values()
    rig.gauge("xrf", 100, jobs={job.job: (0, 1)})
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
    state = make_state("announced", version=4, scan=make_scan(shape=(100, 10), period=0.1), starts_in=2.0)
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
    for (table, key), body in first.kept.items():
        state_file.keep(table, key, body)
    state_file.commit()
    state_file.close()
    second = Rig(tmp_path, first.desk, peek(tmp_path / "j"))
    second.gauge("xrf", 3)
    assert calls_of(second.machine.handle(Tick(), Seconds(0.0))) == [Look()], "ordered before it looked"
    second.handle(Looked(second.desk.look()))
    second.tick()
    assert len(second.planner.ledger.jobs) == 3
    assert len(first.desk.orders) == 1
    assert second.planner.pipelines["xrd"].paused


def test_one_autoscaler_is_in_charge_and_each_has_the_next_number(tmp_path: pathlib.Path) -> None:
    first = StateFile(tmp_path)
    with pytest.raises(BadInput, match=r"another autoscaler runs for this site \(process \d+ on .*stop it first"):
        StateFile(tmp_path)
    first.close()
    second = StateFile(tmp_path)
    assert (first.fence, second.fence) == (1, 2)
    second.close()


def test_a_journal_survives_a_torn_end_and_is_made_short_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster_side.scaling.state_file.MOST_LINES", 10)
    state_file = StateFile(tmp_path)
    for number in range(25):
        state_file.keep("t", "k", b"%d" % number)
        state_file.keep("u", str(number), b'{"a": [%d]}' % number)
        state_file.forget("u", str(number - 1))
        state_file.commit()
    state_file.close()
    file = tmp_path / "journal.jsonl"
    assert len(file.read_bytes().splitlines()) < 20
    with file.open("ab") as end:
        end.write(b'0123456789abcdef ["t", "k", 7')
    again = StateFile(tmp_path)
    assert again.rows == {"t": {"k": b"24"}, "u": {"24": b'{"a": [24]}'}}
    again.close()


def test_nothing_is_on_disk_before_the_commit(tmp_path: pathlib.Path) -> None:
    state_file = StateFile(tmp_path)
    state_file.keep("order", "t", b"1")
    assert peek(tmp_path) == {}
    state_file.commit()
    assert peek(tmp_path) == {"order": {"t": b"1"}}
    state_file.close()


JOURNAL_OF_0_1_0 = """\
9be5596def3e36f2 ["self", "owner", "bt1750000000x1"]
bca67a336f38df87 ["order", "bt1750000000x1.1-1.1.xrf", {"token": "bt1750000000x1.1-1.1.xrf", "pipeline": "xrf", "count": 2, \
"slots": 1, "asked": 12.5, "cost": 0.25, "ids": ["17_0", "17_1"], "unclear": false}]
564ac71afbdbe611 ["order", "bt1750000000x1.1-2.2.xrd", {"token": "bt1750000000x1.1-2.2.xrd", "pipeline": "xrd", "count": 1, \
"slots": 2, "asked": 13.0, "cost": 1.0, "ids": [], "unclear": false}]
6f2bd16fc0822db1 ["scale", "xrd", {"most": 1, "paused": true}]
40cfc4337d535574 ["budget", "hours", {"486111": 3600.0}]
1aa7097b844335b4 ["pace", "xrf", {"service_time": 2.0, "cold_starts": [3.5, 4.0]}]
6f9562e7d7564557 ["order", "gone", {"token": "gone"}]
02e8c8a05131ced2 ["order", "gone", null]
"""


def test_a_journal_of_0_1_0_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "journal.jsonl").write_text(JOURNAL_OF_0_1_0)
    state_file = StateFile(tmp_path)
    planner = autoscaler.planner_for(deployment_in(tmp_path), Desk(), state_file.rows, autoscaler._owner(state_file), 1)
    state_file.close()
    assert planner.ledger.owner == "bt1750000000x1"
    known, unknown = planner.ledger.orders.values()
    assert (known.token, known.ids, known.count, known.cost, known.unclear) == (
        "bt1750000000x1.1-1.1.xrf", ("17_0", "17_1"), 2, 0.25, False,
    )  # fmt: skip
    assert (unknown.token, unknown.slots, unknown.unclear) == ("bt1750000000x1.1-2.2.xrd", 2, True)
    assert planner.budget.hours == {486111: 3600.0}
    xrf, xrd = planner.pipelines.values()
    assert (xrd.most, xrd.paused, xrf.service_time, list(xrf.cold_starts)) == (1, True, 2.0, [3.5, 4.0])


def test_a_launcher_that_breaks_costs_no_thread_and_leaves_the_order_unclear(tmp_path: pathlib.Path) -> None:
    class Broken(Desk):
        def submit(self, order: JobOrder) -> SubmitAnswer:
            raise RuntimeError("kaboom")

    calls = LauncherThread(deployment_in(tmp_path), Broken())
    calls.open()
    with capture_logs() as logged:
        for call in (Start(Order("t", "xrf", 1, 1, 0.0), 1, 60, ()), Look()):
            calls.call(call)
        calls.close()
    answered, looked = calls.returned()
    assert answered == Answered("t", Unclear("the launcher failed: RuntimeError: kaboom"))
    assert looked == Looked(Seen({}))
    assert [one["reason"] for one in logged if one["log_level"] == "error"] == ["RuntimeError: kaboom"]


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
