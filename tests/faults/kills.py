"""Kill anybody at any instant, under load: the rounds that the default run, and `make soak`, go through."""

import pathlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from beamtide import clock
from beamtide.config.models import Deployment, LeaseConfig
from beamtide.pump import Caller
from tests.faults import audit, load
from tests.faults.fork_server import ForkServer

SERVICES = ("topology", "metadata", "distributor", "sink", "fence", "buffer.p", "buffer.q", "sorter.p", "sorter.q")
WORKERS = tuple(f"worker.{pipeline}.{number}" for pipeline in "pq" for number in range(2))
LEASES = LeaseConfig(ttl=2.0, beat=0.4, faults=2, losses=10)
REST = 90.0
"""Seconds within which everything must have its end after the last kill."""


@dataclass(slots=True)
class Rounds:
    """A site under fire."""

    deployment: Deployment
    folder: pathlib.Path
    dice: random.Random
    pause: float
    """Mean seconds between two kills."""

    def run(self, kills: int, then: Callable[[dict[str, int]], None] = lambda _: None) -> audit.Count:
        """Kill so many times, let the site come to rest, and audit it; `then` sees the processes in between, under load."""
        with ForkServer(self.deployment, self.folder) as forks, Caller() as caller:
            pids = dict(zip(SERVICES, forks.start(*SERVICES), strict=True))
            forks.start(*WORKERS, "supply")
            for _ in range(kills):
                clock.pause(self.dice.expovariate(1 / self.pause))
                victim = self.dice.choice((*SERVICES, *SERVICES, *WORKERS, "supply"))
                self._nobody_gave_up(forks)
                pids[victim] = forks.restart(victim)
            then({name: pids[name] for name in SERVICES})
            (self.folder / "enough").touch()
            self._settle(forks, caller)
            return audit.judge(self.deployment, self.folder, caller)

    def _nobody_gave_up(self, forks: ForkServer) -> None:
        ended = {name: code for name, code in forks.ended().items() if (name, code) != ("supply", 0)}
        assert not ended, f"{ended}: {[forks.log(name)[-2000:] for name in ended]}"

    def _settle(self, forks: ForkServer, caller: Caller) -> None:
        end, wanted = clock.monotonic() + REST, -1
        while wanted or audit.open_tasks(self.deployment, caller):
            scans = sorted(set(load.written(self.folder, "scans")))
            left = audit.incomplete(self.deployment, caller, scans)
            wanted = len(left)
            assert clock.monotonic() < end, f"the site does not come to rest; {left[:5]} are not whole"
            clock.pause(0.05)
            self._nobody_gave_up(forks)


def rounds(folder: pathlib.Path, seed: int, pause: float) -> Rounds:
    """Prepare a site."""
    return Rounds(load.site(folder, LEASES), folder, random.Random(seed), pause)
