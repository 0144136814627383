"""What a service takes in: large messages, large batches, peers that never read, and too few descriptors."""

import pathlib
import resource
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import numpy as np
import pytest
import zmq

from beamline_side.hosts import process
from beamtide import clock, codec
from beamtide.client.batching import LARGEST_TASK
from beamtide.client.client import Client
from beamtide.config.models import Budgets, LeaseConfig
from beamtide.errors import BadInput, NoAnswer
from beamtide.machine import Effect, Event, Heard
from beamtide.messages import Ok
from beamtide.messages import results as r
from beamtide.messages.base import Seconds
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.messages.tasks import Lease, LeaseRequest, SubmitRequest
from beamtide.pump import Caller, Limits
from tests.builders.tasks import make_input, make_product
from tests.faults import load
from tests.faults.fork_server import ForkServer
from tests.faults.soak import resident
from tests.system.test_pump import Echo, running

pytestmark = pytest.mark.system


@pytest.fixture
def address(tmp_path: pathlib.Path) -> str:
    return f"ipc://{tmp_path}/a"


@pytest.fixture
def stranger() -> Iterator["zmq.Socket[bytes]"]:
    """A peer that sends what it likes, and reads when it likes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        yield socket


def test_a_message_that_is_too_large_cuts_its_sender_off_and_nobody_else(address: str) -> None:
    with running(echo := Echo(), address, limits=Limits(message=1 << 20)), Caller() as caller:
        with pytest.raises(NoAnswer):
            caller.ask(address, Ok(note="x" * (2 << 20)), Ok, patience=1.0)
        assert caller.ask(address, Ok(note="x" * 1000), Ok).note == "echo"
        assert [len(str(message)) < 2000 for message in echo.heard] == [True]


class Slow(Echo):
    """Needs so long for each message that the others wait in front of it meanwhile."""

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        if isinstance(event, Heard):
            clock.pause(0.02)
        return super().handle(event, now)


def test_a_batch_ends_when_it_is_heavy(address: str, stranger: "zmq.Socket[bytes]") -> None:
    """Messages that wait in front of the service are not all taken into memory before the first is on disk."""
    stranger.connect(address)
    for number in range(20):
        stranger.send_multipart(codec.encode(Ok(), number + 1, arrays={"a": np.zeros(1 << 17)}))  # 1 MiB
    with running(Slow(), address, limits=Limits(message=8 << 20, batch=2 << 20)) as store:
        for _ in range(20):
            stranger.recv_multipart()
    assert max(store.commits) <= 2, "a batch of more than 2 MiB, coming and going"
    assert sum(store.commits) == 20


@pytest.mark.long
def test_a_viewer_that_never_reads_costs_a_few_answers_and_slows_nobody(
    tmp_path: pathlib.Path, stranger: "zmq.Socket[bytes]"
) -> None:
    deployment, task = load.site(tmp_path, LeaseConfig()), load.task("scan_0", "p", 0, 60)
    arrays = {"value": np.arange(60 * 20_000, dtype=np.float64).reshape(60, 20_000)}  # 9 MiB
    result = r.StoreRequest(task=task, attempt=1, outcome="result", datasets=load.HEADERS)
    product = make_product("scan_0", settings=load.SETTINGS)
    fetch = r.FetchRequest(product=product, dataset="value", start=0, stop=60)
    with ForkServer(deployment, tmp_path) as forks, Caller() as good:
        (pid,) = forks.start("sink")
        sink = deployment.address("sink")
        good.ask(sink, r.Release(result=result), r.Released, arrays=arrays, patience=30)
        for _ in range(3):
            good.converse(sink, fetch, r.Fetched, patience=30)
        before = resident(pid)
        stranger.sndhwm = 10_000
        stranger.rcvhwm = 1
        stranger.connect(sink)
        for number in range(300):
            for question in (fetch, r.WatchRequest(after=10**9, wait=60.0)):
                stranger.send_multipart(codec.encode(question, number + 1))
        slowest, end = 0.0, clock.monotonic() + 1.5
        while clock.monotonic() < end:
            began = clock.monotonic()
            good.ask(sink, r.ListRequest(), r.Products, patience=30)
            slowest = max(slowest, clock.monotonic() - began)
        grown = resident(pid) - before
        assert grown < 280 << 20, f"{grown >> 20} MiB for somebody who never reads"
        assert slowest < 2.5, f"a good peer waited {slowest:.1f} s"
        _, values = good.converse(sink, fetch, r.Fetched, patience=30)
        np.testing.assert_array_equal(values["data"], arrays["value"])


@pytest.mark.long
def test_many_viewers_that_never_read_share_one_budget_and_starve_nobody(tmp_path: pathlib.Path) -> None:
    deployment = load.site(tmp_path, LeaseConfig(), Budgets(memory=64, message=16))
    task = load.task("scan_0", "p", 0, 60)
    arrays = {"value": np.arange(60 * 20_000, dtype=np.float64).reshape(60, 20_000)}  # 9 MiB
    result = r.StoreRequest(task=task, attempt=1, outcome="result", datasets=load.HEADERS)
    product = make_product("scan_0", settings=load.SETTINGS)
    fetch = r.FetchRequest(product=product, dataset="value", start=0, stop=60)
    with ForkServer(deployment, tmp_path) as forks, Caller() as good, ExitStack() as deaf_ones:
        context = deaf_ones.enter_context(zmq.Context())
        (pid,) = forks.start("sink")
        sink = deployment.address("sink")
        good.ask(sink, r.Release(result=result), r.Released, arrays=arrays, patience=30)
        good.converse(sink, fetch, r.Fetched, patience=30)
        before = resident(pid)
        for _ in range(8):
            viewer = deaf_ones.enter_context(context.socket(zmq.DEALER))
            viewer.linger, viewer.rcvhwm, viewer.sndhwm = 0, 1, 1000
            viewer.connect(sink)
            for number in range(20):
                viewer.send_multipart(codec.encode(fetch, number + 1))
        for _ in range(8 * 20):  # it has answered all of them when it has answered so many that came later
            good.ask(sink, r.ListRequest(), r.Products, patience=30)
        grown = resident(pid) - before
        assert grown < 150 << 20, f"{grown >> 20} MiB for eight who never read"
        _, values = good.converse(sink, fetch, r.Fetched, patience=5)
        np.testing.assert_array_equal(values["data"], arrays["value"])


@pytest.mark.long
def test_a_worker_that_never_reads_gives_its_leases_back(tmp_path: pathlib.Path, stranger: "zmq.Socket[bytes]") -> None:
    """Its pipe is full: the buffer neither waits for it nor dies of it, and the task is somebody else's at once."""
    deployment = load.site(tmp_path, LeaseConfig(ttl=300.0))
    with ForkServer(deployment, tmp_path) as forks, Caller() as good:
        forks.start("distributor", "buffer.p")
        buffer = deployment.address("buffer.p")
        long = "x" * 50_000  # so that pipes are full soon
        source = make_input(long)
        tasks = tuple(load.task(f"scan_{n}", "p", 0, 1) for n in range(400))
        for task in tasks:
            request = SubmitRequest(tasks=(msgspec.structs.replace(task, inputs=(source,)),))
            good.ask(deployment.address("distributor"), request, Ok, patience=30)
        stranger.rcvhwm, stranger.sndhwm = 1, 10_000
        stranger.connect(buffer)
        for _ in range(6000):  # it asks for its one lease again and again, and reads no answer
            stranger.send_multipart(codec.encode(LeaseRequest(worker="deaf", job="j", wait=60.0), 7))
        seen: list[BufferGauge] = []
        end = clock.monotonic() + 30
        while not seen or seen[-1].leased:
            assert clock.monotonic() < end, f"the deaf one holds a task for ever: {seen[-1:]}"
            seen.append(good.ask(buffer, GaugeRequest(), BufferGauge, patience=10))
        lease = good.ask(buffer, LeaseRequest(worker="good", job="j", wait=5.0), Lease, patience=30)
        assert lease.attempt >= 1
        assert good.ask(buffer, GaugeRequest(), BufferGauge).retried == 0, "handing back counts for nothing"


def test_tasks_are_submitted_in_portions_that_fit(tmp_path: pathlib.Path) -> None:
    deployment = load.site(tmp_path, LeaseConfig())
    with ForkServer(deployment, tmp_path) as forks, Client(deployment) as client:
        forks.start("distributor")
        source = make_input("x" * 100_000)
        tasks = [msgspec.structs.replace(load.task("s", "p", n, n + 1), inputs=(source,)) for n in range(30)]
        client.submit(tasks)
        assert client.status("s").tallies[0].submitted == 30
        large = msgspec.structs.replace(tasks[0], inputs=(source,) * 6)
        with pytest.raises(BadInput, match=f"task s/p/0 has 5.. KiB, at most {LARGEST_TASK >> 10} are taken"):
            client.submit([large])


def test_too_few_descriptors_are_one_sentence_before_the_start() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(BadInput, match=r"with \d+ workers .* may need \d+ open files, and the system allows it \d+: raise"):
        process._allow_descriptors(hard)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard), "nothing was changed"
    process._allow_descriptors(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
