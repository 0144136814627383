"""How fast results go from workers over the sorter into the sink: 1 MiB arrays, durable, plain TCP loopback.

Eight simulated workers store one result after the other; the clock stops when the sink has them all. A result crosses TCP once
and is synced once, at the sorter, before the worker hears `Ok`; the sink takes a name of its own for it (docs/adr/0010).
The floor is the slower of one plain TCP connection on loopback and one synced write of the same bytes, the mean of one before and
one after; with CURVE it is bare messages over one connection.
"""

import os
import pathlib
import socket
import statistics
import threading
from typing import Any

import numpy as np
import zmq

from beamtide import clock, codec
from beamtide.config.models import Deployment
from beamtide.messages.results import DatasetHeader, Products, Provenance, StoreRequest, WatchRequest
from beamtide.pump import Caller
from beamtide.pump.authentication import new_pair
from beamtide.security.guard import identity_of
from beamtide.security.key_files import Identity, KeyEntry
from benchmarks import load, services
from benchmarks.measure import Beside, Book, HeldMemory, cpu_seconds, scratch

MIB = 1 << 20
COUNT = 256
WORKERS = 8
REPETITIONS = 9


def run(book: Book) -> None:
    """Repeat ours, each between two measurements of its floor: what a disk gives changes from second to second."""
    ours: list[tuple[float, float, float]] = []
    curve: list[float] = []
    tcp: list[float] = []
    disk: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    for _ in range(REPETITIONS):
        with scratch() as folder:
            path = pathlib.Path(folder)
            book.sync(path)
            tcp.append(_tcp())
            before = _synced(path)
            ours.append(_through(services.deployment_in(path / "site", curve=False)))
            disk.append((before, _synced(path)))
            before = _curve()
            curve.append(_through(services.deployment_in(path / "with keys", curve=True))[0])
            bare.append((before, _curve()))
    visible, acknowledged, busy = (list(column) for column in zip(*ours, strict=True))
    synced = [sum(pair) / 2 for pair in disk]
    name, floor = min((("plain TCP loopback", tcp), ("a synced write", synced)), key=lambda pair: statistics.median(pair[1]))
    notes = {"mechanism": "plain", "durable": True, "service_cpu_s_per_gb": round(statistics.median(busy), 2)}
    book.row("gb_per_s_1mib_plain", visible, "GB/s", "higher", floor=Beside(name, floor), notes=notes)
    _ratio(book, "plain_to_floor_of_its_pair", visible, floor)
    _with_keys(book, curve, [sum(pair) / 2 for pair in bare])
    what = {"what": "until the sorter said Ok to every worker"}
    book.row("stored_gb_per_s_1mib_plain", acknowledged, "GB/s", "higher", floor=Beside(name, floor), notes=notes | what)


def _with_keys(book: Book, curve: list[float], bare: list[float]) -> None:
    beside = Beside("bare CURVE messages, not kept", bare)
    book.row("gb_per_s_1mib_curve", curve, "GB/s", "higher", floor=beside, notes={"mechanism": "CURVE", "durable": True})
    _ratio(book, "curve_to_floor_of_its_pair", curve, bare)


def _ratio(book: Book, name: str, ours: list[float], floor: list[float]) -> None:
    ratios = [one / other for one, other in zip(ours, floor, strict=True)]
    book.row(name, ratios, "x", "higher", notes={"bar": 0.5})


def _through(deployment: Deployment) -> tuple[float, float, float]:
    """Return GB/s until the sink has everything, GB/s until the workers are done, and the services' CPU seconds per GB."""
    context: zmq.Context[Any] = zmq.Context()
    with (
        services.serving(deployment, "sink", "sorter.encoders") as running,
        Caller(identity_of(deployment, "component")) as caller,
    ):
        for name in ("sink", "sorter.encoders"):
            services.await_answer(deployment, name)
        memory = HeldMemory(2 * COUNT * MIB)
        before = sum(cpu_seconds(process.pid) for process in running.values())
        began = clock.monotonic()
        _store(load.Place(context, deployment.address("sorter.encoders"), identity_of(deployment, "worker")), memory)
        acknowledged = clock.monotonic() - began
        version = complete = 0
        while complete < COUNT:
            products = caller.ask(deployment.address("sink"), WatchRequest(after=version, wait=1.0), Products)
            version, complete = products.version, max((state.complete for state in products.products), default=complete)
        visible = clock.monotonic() - began
        used = sum(cpu_seconds(process.pid) for process in running.values()) - before
    context.destroy(linger=0)
    size = COUNT * MIB / 1e9
    return size / visible, size / acknowledged, used / size


def _store(place: load.Place, memory: HeldMemory) -> None:
    """Store all results: each worker sends its next one when the last is on disk."""
    array, poller, sent = np.random.default_rng(1).random((1, MIB // 8)), zmq.Poller(), 0
    sockets = [place.connected() for _ in range(WORKERS)]
    waiting = 0

    def send(to: Any) -> None:
        nonlocal sent, waiting
        if sent < COUNT:
            to.send_multipart(codec.encode(_result(sent), 1, arrays={"x": array}), copy=False)
            sent, waiting = sent + 1, waiting + 1
            memory.give(2 * MIB)

    for one in sockets:
        poller.register(one, zmq.POLLIN)
        send(one)
    while waiting:
        for one, _ in poller.poll(1000):
            kind = load.kind_in(one.recv())
            assert kind == b"Ok", kind
            waiting -= 1
            send(one)
    for one in sockets:
        one.close()


def _result(number: int) -> StoreRequest:
    provenance = Provenance(worker="node-1", host="node", job="job", attempt=1, seconds=0.1)
    header = DatasetHeader(name="x", units="um")
    return StoreRequest(task=load.task_of(number), attempt=1, outcome="result", datasets=(header,), provenance=provenance)


def _tcp() -> float:
    """Return GB/s of one plain connection on loopback."""
    block, buffer = bytes(MIB), bytearray(MIB)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=_send_all, args=(server.getsockname(), block))
        began = clock.monotonic()
        sender.start()
        connection, _ = server.accept()
        with connection:
            left = COUNT * MIB
            while left:
                left -= connection.recv_into(buffer, min(left, MIB))
        sender.join()
    return COUNT * MIB / 1e9 / (clock.monotonic() - began)


def _curve() -> float:
    """Return GB/s of messages of 1 MiB over one bare CURVE connection."""
    public, secret = new_pair()
    identity = Identity(KeyEntry("bench", "worker", public, 4e9), secret, public)
    with zmq.Context() as context:
        server: Any = context.socket(zmq.ROUTER)
        server.curve_server, server.curve_secretkey = True, secret.encode()
        port, block = server.bind_to_random_port("tcp://127.0.0.1"), bytes(MIB)
        sender = load.Place(context, f"tcp://127.0.0.1:{port}", identity).connected()
        sender.sndhwm = WORKERS
        sender.send(b"")  # the handshake is over when it is there
        server.recv_multipart()
        began, sent, heard = clock.monotonic(), 0, 0
        while heard < COUNT:
            if sent < min(COUNT, heard + WORKERS):
                sender.send(block, copy=False)
                sent += 1
            else:
                server.recv_multipart(copy=False)
                heard += 1
        taken = clock.monotonic() - began
        sender.close()
        server.close(linger=0)
    return COUNT * MIB / 1e9 / taken


def _send_all(address: tuple[str, int], block: bytes) -> None:
    with socket.create_connection(address) as connection:
        for _ in range(COUNT):
            connection.sendall(block)


def _synced(folder: pathlib.Path) -> float:
    """Return GB/s of appends of 1 MiB, each synced, as many at once as there are workers."""
    block, memory = os.urandom(MIB * WORKERS), HeldMemory(2 * COUNT * MIB)
    began = clock.monotonic()
    with (folder / "floor").open("wb", buffering=0) as file:
        for _ in range(COUNT // WORKERS):
            memory.give(2 * len(block))
            file.write(block)
            os.fdatasync(file.fileno())
    return COUNT * MIB / 1e9 / (clock.monotonic() - began)
