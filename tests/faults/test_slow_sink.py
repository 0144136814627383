"""A sink that takes a megabyte a second, and a source that never pauses (F12): nothing grows, nothing is lost."""

import pathlib

import pytest

from beamtide import clock
from beamtide.config.models import Budgets, LeaseConfig
from beamtide.pump import Caller
from tests.faults import audit, load
from tests.faults.fork_server import ForkServer
from tests.faults.soak import resident
from tests.waits import wait_until

pytestmark = [pytest.mark.system, pytest.mark.long]
BUDGETS = Budgets(memory=16, message=8, backlog=10)
WORKERS = tuple(f"heavy.{number}" for number in range(4))
SERVICES = ("distributor", "buffer.p", "sorter.p")


def size_of(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_slow_sink_slows_the_source_and_fills_nothing(tmp_path: pathlib.Path) -> None:
    deployment = load.site(tmp_path, LeaseConfig(ttl=60.0), BUDGETS)
    spool = tmp_path / "s" / "spool"
    with ForkServer(deployment, tmp_path) as forks, Caller() as caller:
        pids = dict(zip(SERVICES, forks.start(*SERVICES), strict=True))
        forks.start("slowsink")
        before = {name: resident(pid) for name, pid in pids.items()}
        forks.start(*WORKERS, "flood")
        wait_until(lambda: {line.split()[0][:5] for line in load.written(tmp_path, "busy")} >= {"sourc", "heavy"}, patience=60)
        accepted, end = load.written(tmp_path, "accepted"), clock.monotonic() + 3.0
        while clock.monotonic() < end:
            for name, pid in pids.items():
                grown = resident(pid) - before[name]
                assert grown < 80 << 20, f"{name} has grown by {grown >> 20} MiB"
            stored = sum(size_of(path) for path in spool.glob("sorter.p*"))
            assert stored < 100 << 20, "results pile up"
            clock.pause(0.1)
        assert len(load.written(tmp_path, "accepted")) - len(accepted) <= 1, "the source goes on as if nothing were"
        said = "".join(load.written(tmp_path, "busy"))
        assert "tasks wait to be taken by buffers" in said
        assert "MiB of results wait for the sink" in said
        for file in ("enough", "fast"):
            (tmp_path / file).touch()
        wait_until(lambda: not audit.open_tasks(deployment, caller), patience=60)
        wanted = int(load.written(tmp_path, "accepted")[-1])
        wait_until(lambda: len(set(load.written(tmp_path, "taken"))) >= wanted, patience=60)
        taken = [int(line.rpartition("/")[2]) for line in dict.fromkeys(load.written(tmp_path, "taken"))]
        assert taken == sorted(taken) == list(range(wanted)), "something is lost, or out of order"
        assert forks.ended().keys() <= {"flood"}
