"""The states of a job, the facts that change them, and the values of the ledger: orders, jobs, and news about them.

Clock policy: times are the caller's monotonic clock in seconds.
Invariants: a state and a fact have at most one next state, and none leads out of CLOSED.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from cluster_side.scaling.launchers.base import EndCause, Sighting


class JobState(enum.Enum):
    """The state of a job, as far as we know it."""

    ASKED = "asked for"
    PENDING = "pending"
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    LEAVING = "leaving"
    CLOSED = "closed"


class JobFact(enum.Enum):
    """What we learn about a job."""

    WAITS = "waits"
    RUNS = "runs"
    ASKS = "a worker asks for work"
    WORKS = "a worker has a task"
    TOLD = "told to leave"
    OVER = "over"


_S, _F = JobState, JobFact
TRANSITIONS: Mapping[tuple[JobState, JobFact], JobState] = {
    (_S.ASKED, _F.WAITS): _S.PENDING,
    (_S.ASKED, _F.RUNS): _S.STARTING,
    (_S.PENDING, _F.RUNS): _S.STARTING,
    (_S.STARTING, _F.WAITS): _S.PENDING,
    (_S.IDLE, _F.WAITS): _S.PENDING,
    (_S.BUSY, _F.WAITS): _S.PENDING,
    (_S.IDLE, _F.WORKS): _S.BUSY,
    (_S.BUSY, _F.ASKS): _S.IDLE,
    **{(state, _F.ASKS): _S.IDLE for state in (_S.ASKED, _S.PENDING, _S.STARTING)},
    **{(state, _F.WORKS): _S.BUSY for state in (_S.ASKED, _S.PENDING, _S.STARTING)},
    **{(state, _F.TOLD): _S.LEAVING for state in (_S.PENDING, _S.STARTING, _S.IDLE, _S.BUSY)},
    **{(state, _F.OVER): _S.CLOSED for state in (_S.ASKED, _S.PENDING, _S.STARTING, _S.IDLE, _S.BUSY, _S.LEAVING)},
}
"""Every change of a job's state; a fact that is not here changes nothing (a job that leaves is LEAVING until it is over)."""
ALIVE = frozenset(JobState) - {JobState.CLOSED}
WORKING = frozenset({JobState.IDLE, JobState.BUSY})
ON_THE_WAY = frozenset({JobState.ASKED, JobState.PENDING, JobState.STARTING})


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for: `count` jobs of `slots` slots; `ids` once they are known; `cost` in nodes per job."""

    token: str
    pipeline: str
    count: int
    slots: int
    asked: float
    cost: float = 1.0
    ids: tuple[str, ...] = ()
    unclear: bool = False


@dataclass(slots=True)
class Job:
    """One job, with what was last seen of it."""

    sighting: Sighting
    order: Order
    state: JobState
    since: float
    """When it came into this state."""
    started: float | None = None
    """When it was first seen running."""
    heard: float | None = None
    """When a worker of it was last heard of."""
    workers: int = 0
    """Slots, as far as its workers were heard of."""
    misses: int = 0
    cause: EndCause | None = None

    @property
    def id(self) -> str:
        """The batch system's name for it."""
        return self.sighting.id


@dataclass(frozen=True, slots=True)
class Registered:
    """The first worker of a job was heard of: so many seconds after it was asked for, and after it ran (None: unknown)."""

    job: Job
    after: float
    start: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over."""

    job: Job
    cause: EndCause
    reason: str
    worked: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order was refused, or its jobs were never seen."""

    order: Order
    cause: EndCause
    reason: str


News: TypeAlias = Registered | Ended | Refusal


def token_of(owner: str, number: str, slots: int, pipeline: str) -> str:
    """Return a token: it names the owner of the order, and enough to adopt its jobs without the state file."""
    return f"{owner}.{number}.{slots}.{pipeline}"


def order_of(token: str, now: float) -> Order:
    """Return the order of a token, for jobs of ours that are not in the state file."""
    _, _, slots, pipeline = token.split(".", 3)
    return Order(token, pipeline, 0, int(slots), now)
