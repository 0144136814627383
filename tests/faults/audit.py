"""The audit after the kills: accepted = visible + dead + queued, nothing twice, nothing changed, nothing that nobody computed."""

import pathlib
from dataclasses import dataclass

import numpy as np

from beamtide.config.models import Deployment
from beamtide.machine import Arrays
from beamtide.messages import results as r
from beamtide.messages.dead_letters import DeadLetters, DeadListRequest
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.messages.tasks import StatusRequest, TaskStatus
from beamtide.pump import Caller
from tests.builders.tasks import make_product
from tests.faults import load


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the tasks."""

    accepted: int
    visible: int
    dead: int
    queued: int


def open_tasks(deployment: Deployment, caller: Caller) -> int:
    """Return how many tasks have no verdict yet."""
    status = caller.ask(deployment.address("distributor"), StatusRequest(), TaskStatus, patience=20)
    return sum(one.submitted - one.results - one.empty - one.abandoned for one in status.tallies)


def incomplete(deployment: Deployment, caller: Caller, scans: list[str]) -> list[str]:
    """Return the products of these scans that the sink does not have whole yet."""
    answer = caller.ask(deployment.address("sink"), r.ListRequest(), r.Products, patience=20)
    whole = {(one.product.scan, one.product.pipeline) for one in answer.products if one.complete == load.POINTS}
    return [f"{scan}/{name}" for scan in scans for name in "pq" if (scan, name) not in whole]


def judge(deployment: Deployment, folder: pathlib.Path, caller: Caller) -> Count:
    """Hold what was written down against what the services have; AssertionError says what differs."""
    scans = sorted(set(load.written(folder, "scans")))
    tasks = {task.id: task for scan in scans for task in load.tasks_of(scan)}
    assert set(load.written(folder, "accepted")) == set(tasks), "not everything was accepted"
    leased = {tuple(line.split()[:2]) for line in load.written(folder, "leased")}
    stored, dead = set(load.written(folder, "stored")), _dead(deployment, caller)
    visible = set[str]()
    for scan in scans:
        for name in "pq":
            for result, arrays in _results(deployment, caller, scan, name):
                task = tasks[result.task.id]
                if result.outcome == "abandoned":
                    assert task.id not in stored, f"{task.id}: a worker was told that it is stored, and it is a hole"
                    assert task.id in dead, f"{task.id} is a hole, and no dead letter: {result.reason}"
                    continue
                visible.add(task.id)
                assert (task.id, str(result.attempt)) in leased, f"{task.id}: nobody had attempt {result.attempt}"
                np.testing.assert_array_equal(arrays["value"], load.arrays_of(task, result.attempt)["value"])
    gauges = [caller.ask(deployment.address(f"buffer.{name}"), GaugeRequest(), BufferGauge, patience=20) for name in "pq"]
    queued = sum(one.ready + one.held + one.leased for one in gauges)
    assert not dead & visible, f"visible, and dead letters: {sorted(dead & visible)}"
    count = Count(len(tasks), len(visible), len(dead), queued)
    assert count.accepted == count.visible + count.dead + count.queued, count
    status = caller.ask(deployment.address("distributor"), StatusRequest(), TaskStatus, patience=20)
    sums = [sum(getattr(one, name) for one in status.tallies) for name in ("submitted", "results", "abandoned")]
    assert sums == [count.accepted, count.visible, count.dead], f"the distributor counts {sums}, {count}"
    return count


def _dead(deployment: Deployment, caller: Caller) -> set[str]:
    found: set[str] = set()
    for name in "pq":
        skip, total = 0, 1
        while skip < total:
            answer = caller.ask(deployment.address(f"buffer.{name}"), DeadListRequest(skip=skip), DeadLetters, patience=20)
            found |= {letter.task.id for letter in answer.letters}
            skip, total = skip + len(answer.letters), answer.total if answer.letters else 0
    return found


def _results(deployment: Deployment, caller: Caller, scan: str, pipeline: str) -> list[tuple[r.StoreRequest, Arrays]]:
    """Return all results of a product; each index stands in one of them."""
    product = make_product(scan, pipeline, load.SETTINGS)
    found: list[tuple[r.StoreRequest, Arrays]] = []
    at = 0
    while at < load.POINTS:
        request = r.ResultsRequest(product=product, start=at)
        answer, arrays = caller.converse(deployment.address("sink"), request, r.Results, patience=20)
        for position, result in enumerate(answer.results):
            assert result.task.start == at, f"{scan}/{pipeline}: index {at} is missing, or there twice"
            own = {name.partition("/")[2]: one for name, one in arrays.items() if name.startswith(f"{position}/")}
            found.append((result, own))
            at = result.task.stop
        assert answer.results, f"{scan}/{pipeline}: nothing from index {at} on"
    return found
