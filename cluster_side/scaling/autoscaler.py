"""The autoscaler: the shell around `ScalerMachine`. It makes the core, joins it to the pump, and looks after the end.

It answers requests like every component; workers talk to buffers, never to it, so that its death affects no running task. Told to
stop, it orders nothing more and withdraws pending jobs; jobs that work go on until they are idle, and the next autoscaler adopts
them. Jobs on this machine cannot outlive it: they are told to leave, and waited for.

Clock policy: `beamtide.clock`.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable

import structlog

from beamtide import clock
from beamtide.component import state_folder
from beamtide.component.heartbeat import card_of
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.machine import Effect, Forget, Keep
from beamtide.messages.base import PipelineName, Seconds
from beamtide.messages.metadata import Scans, ScansRequest
from beamtide.messages.scaling import BufferGauge, GaugeRequest, SorterGauge
from beamtide.pump import Caller, Limits, Pump
from beamtide.security.guard import guard_of, identity_of
from beamtide.session import Session
from cluster_side.scaling.jobs.batch_calls import Looked, Start
from cluster_side.scaling.jobs.ledger import PRESENT, Ledger
from cluster_side.scaling.jobs.states import JobState
from cluster_side.scaling.launcher_thread import LauncherThread
from cluster_side.scaling.launchers import launcher_of
from cluster_side.scaling.launchers.base import JobOrder, Launcher, Phase, Seen
from cluster_side.scaling.orders import cost_of, order_for
from cluster_side.scaling.policy.budget import NodeHourBudget
from cluster_side.scaling.policy.forecast import Forecast
from cluster_side.scaling.policy.pipeline import PipelineState
from cluster_side.scaling.policy.planner import Ceilings, Planner
from cluster_side.scaling.scaling_loop import ScalerMachine, order_row, restored
from cluster_side.scaling.state_file import Rows, StateFile, peek

FAREWELL = 35.0
"""Longer than a job needs to drain (seconds)."""
PATIENCE = 5.0
log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """What the autoscaler would order, with the exact script, and why; `order` is None if it would order nothing."""

    pipeline: str
    because: str
    order: JobOrder | None = None
    script: str = ""


def planner_for(deployment: Deployment, launcher: Launcher, rows: Rows, owner: str, fence: int) -> Planner:
    """Return the planner of a deployment, with what an earlier autoscaler kept."""
    pipelines = {
        name: PipelineState(config, launcher.first_start, Forecast(config)) for name, config in deployment.pipelines.items()
    }
    scaling, now = deployment.site.scaling, clock.monotonic()
    planner = Planner(
        pipelines,
        Ledger(owner, present=max(PRESENT, 2.5 * scaling.tick)),
        Ceilings(scaling.caps.jobs, scaling.caps.cpus or 0),
        NodeHourBudget(scaling.caps.node_hours_per_day, clock.utc() - now),
        scaling.drain_within,
        str(fence),
        {name: cost_of(config, launcher) for name, config in deployment.pipelines.items()},
        deployment.site.launcher,
    )
    restored(planner, rows, now)
    return planner


def run(deployment: Deployment, on_stop: Callable[[Callable[[], None]], None]) -> None:
    """Scale until told to stop; `on_stop` is called with the function that stops us."""
    launcher = launcher_of(deployment)
    if problems := launcher.problems([_example(deployment, launcher, name) for name in deployment.pipelines]):
        raise BadInput("\n".join(problems))
    state_folder.prepare(deployment)
    state_file = StateFile(deployment.site.state / "autoscaler")
    try:
        owner = _owner(state_file)
        planner = planner_for(deployment, launcher, state_file.rows, owner, state_file.fence)
        scaling = deployment.site.scaling
        machine = ScalerMachine(planner, scaling.tick, scaling.idle_exit)
        links = {name: name for name in ("topology", "metadata")}
        links |= {to: to for name in planner.pipelines for to in (f"buffer.{name}", f"sorter.{name}")}
        pump = Pump(
            machine,
            Session(card_of(deployment, "autoscaler", tuple(links.values()))),
            {name: deployment.address(to) for name, to in links.items()},
            state_file,
            Limits(guard=guard_of(deployment)),
        )
        on_stop(pump.stop)
        calls = LauncherThread(deployment, launcher)
        log.info("in charge", fence=state_file.fence, owner=owner, adopted=len(planner.ledger.orders))
        calls.open()
        try:
            pump.run(calls)
        finally:
            _leave(machine, calls, state_file, everything=not launcher.jobs_outlive_us)
    finally:
        state_file.close()


def propose(deployment: Deployment, queued: dict[str, int] | None = None) -> list[Proposal]:
    """Return what would be ordered now, or with so many ready tasks by pipeline, without ordering anything."""
    launcher, rows = launcher_of(deployment), peek(deployment.site.state / "autoscaler")
    if queued is not None:
        rows = {**rows, "order": {}}  # imagined tasks meet an imagined cluster that is empty
    planner = planner_for(deployment, launcher, rows, _owner_in(rows) or "beamtide", 0)
    _inform(deployment, planner, queued)
    planner.listed(Seen({}) if queued is not None else launcher.look(), clock.monotonic())
    acts = planner.step(clock.monotonic())
    orders = {act.order.pipeline: order_for(deployment, launcher, act) for act in acts if isinstance(act, Start)}
    found = []
    for name, pipeline in planner.pipelines.items():
        if queued is None or name in queued:
            order = orders.get(name)
            found.append(Proposal(name, pipeline.because, order, launcher.render(order) if order else ""))
    return found


def once(deployment: Deployment) -> list[Proposal]:
    """Decide once, submit, and end; a later autoscaler adopts the jobs."""
    launcher = launcher_of(deployment)
    state_file = StateFile(deployment.site.state / "autoscaler")
    try:
        planner = planner_for(deployment, launcher, state_file.rows, _owner(state_file), state_file.fence)
        _inform(deployment, planner, None)
        planner.listed(launcher.look(), clock.monotonic())
        found = []
        for act in planner.step(clock.monotonic()):
            if isinstance(act, Start):
                _keep(state_file, [order_row(act.order)])
                order = order_for(deployment, launcher, act)
                planner.take(planner.ledger.answered(order.token, launcher.submit(order), clock.monotonic()), clock.monotonic())
                kept = planner.ledger.orders.get(order.token)
                _keep(state_file, [order_row(kept) if kept else Forget("order", order.token)])
                found.append(Proposal(order.pipeline, planner.pipelines[order.pipeline].because, order, launcher.render(order)))
        return found
    finally:
        state_file.close()


def _leave(machine: ScalerMachine, calls: LauncherThread, state_file: StateFile, *, everything: bool) -> None:
    """Order nothing more; take back what waits, or everything and wait for it."""
    calls.close()
    for event in calls.returned():
        _keep(state_file, machine.handle(event, Seconds(clock.monotonic())))
    jobs = machine.planner.ledger.jobs.values()
    gone = [job.id for job in jobs if everything or job.state is JobState.PENDING]
    launcher, end = calls.launcher, clock.monotonic() + FAREWELL
    if gone:
        launcher.cancel(gone)
    while everything and _alive(launcher, gone) and clock.monotonic() < end:
        clock.pause(0.05)
    last = machine.handle(Looked(launcher.look()), Seconds(clock.monotonic()))
    _keep(state_file, [*last, *machine.notes()])


def _keep(state_file: StateFile, effects: Iterable[Effect]) -> None:
    """Keep and forget as the pump does; who leaves sends nothing more."""
    for effect in effects:
        if isinstance(effect, Keep):
            state_file.keep(effect.table, effect.key, effect.body)
        elif isinstance(effect, Forget):
            state_file.forget(effect.table, effect.key)
    state_file.commit()


def _alive(launcher: Launcher, jobs: list[str]) -> bool:
    listing = launcher.look()
    if not isinstance(listing, Seen):
        return True
    return any(job in listing.jobs and listing.jobs[job].phase not in (Phase.ENDED, Phase.FAILED) for job in jobs)


def _owner(state_file: StateFile) -> str:
    """Return the name of this deployment in tokens: made once, then kept."""
    if not _owner_in(state_file.rows):
        _keep(state_file, [Keep("self", "owner", json.dumps(f"bt{clock.utc():.0f}x{state_file.fence}").encode())])
    return _owner_in(state_file.rows)


def _owner_in(rows: Rows) -> str:
    return str(json.loads(rows.get("self", {}).get("owner", b'""')))


def _inform(deployment: Deployment, planner: Planner, queued: dict[str, int] | None) -> None:
    """Tell the planner how long the queues are, or are imagined to be."""
    now = clock.monotonic()
    if queued is not None:
        for name, ready in queued.items():
            planner.pipelines[name].gauged(BufferGauge(pipeline=PipelineName(name), ready=ready), now)
        return
    with Caller(identity_of(deployment, "component")) as caller:
        scans = caller.ask(deployment.address("metadata"), ScansRequest(), Scans, patience=PATIENCE).scans
        for name, pipeline in planner.pipelines.items():
            address = deployment.address(f"buffer.{name}")
            gauge = caller.ask(address, GaugeRequest(), BufferGauge, patience=PATIENCE)
            results = caller.ask(deployment.address(f"sorter.{name}"), GaugeRequest(), SorterGauge, patience=PATIENCE)
            pipeline.gauged(gauge, clock.monotonic())
            pipeline.full = results.full
            pipeline.forecast.heard(scans, clock.monotonic())
            planner.ledger.workers_heard(gauge.jobs, clock.monotonic())


def _example(deployment: Deployment, launcher: Launcher, name: str) -> JobOrder:
    """Return an example of an order, to check it before anything is submitted."""
    planner = planner_for(deployment, launcher, {}, "check", 0)
    planner.caps, planner.budget = Ceilings(1), NodeHourBudget(1e9, 0.0)
    _inform(deployment, planner, {name: 1})
    planner.listed(Seen({}), clock.monotonic())
    (act,) = planner.step(clock.monotonic())
    assert isinstance(act, Start)
    return order_for(deployment, launcher, act)
