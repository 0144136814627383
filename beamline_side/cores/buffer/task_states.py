"""The states of a task in its buffer, the facts that change them, and the life of a lease: the tables behind docs/states.md.

The state of a task is where the buffer keeps it: fenced tasks in `fenced_tasks`, queued ones in `backlog`, leased, resting and
ready ones in `lease_table`, dead letters in `dead_letters`; of a closed task only the verdict is left.
`tests/unit/test_task_states.py` checks a real buffer against these tables: it makes every change that they have, and no other.

No clock. Invariant: a state and a fact have at most one next state, and none leads out of CLOSED.
"""

import enum
from collections.abc import Mapping


class TaskState(enum.Enum):
    """Where a task is, from its arrival in the buffer to its verdict."""

    FENCED = "fenced"
    QUEUED = "queued"
    LEASED = "leased"
    RESTING = "resting"
    READY = "ready again"
    DEAD = "dead letter"
    CLOSED = "closed"


class TaskFact(enum.Enum):
    """What happens to a task."""

    COMES_WITH_NEED = "arrives with a need"
    COMES = "arrives"
    COMES_VOID = "arrives void"
    FENCE_REACHED = "fence reached"
    FENCE_BROKEN = "fence broken"
    TAKEN = "a worker takes it"
    STORED = "result stored"
    FAILED = "fails"
    LOST = "worker lost"
    HANDED_BACK = "handed back"
    LIMIT = "fails or is lost too often"
    RESTED = "has rested"
    CANCELLED = "scan cancelled"
    RETRIED = "retried"
    DROPPED = "dropped"


_S, _F = TaskState, TaskFact
ARRIVALS: Mapping[TaskFact, TaskState] = {
    _F.COMES_WITH_NEED: _S.FENCED,
    _F.COMES: _S.QUEUED,
    _F.COMES_VOID: _S.CLOSED,
}
"""How a task begins in its buffer."""
CHANGES: Mapping[tuple[TaskState, TaskFact], TaskState] = {
    (_S.FENCED, _F.FENCE_REACHED): _S.QUEUED,
    (_S.FENCED, _F.FENCE_BROKEN): _S.CLOSED,
    (_S.QUEUED, _F.TAKEN): _S.LEASED,
    (_S.READY, _F.TAKEN): _S.LEASED,
    (_S.LEASED, _F.STORED): _S.CLOSED,
    (_S.LEASED, _F.FAILED): _S.RESTING,
    (_S.LEASED, _F.LOST): _S.READY,
    (_S.LEASED, _F.HANDED_BACK): _S.READY,
    (_S.LEASED, _F.LIMIT): _S.DEAD,
    (_S.RESTING, _F.RESTED): _S.READY,
    (_S.DEAD, _F.RETRIED): _S.READY,
    (_S.DEAD, _F.DROPPED): _S.CLOSED,
    **{(state, _F.CANCELLED): _S.CLOSED for state in (_S.FENCED, _S.QUEUED, _S.LEASED, _S.RESTING, _S.READY)},
}
"""Every change of a task's state; a fact that is not here changes nothing."""


class LeaseState(enum.Enum):
    """How far a lease (one attempt) is."""

    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    HANDED_BACK = "handed back"
    CANCELLED = "cancelled"


class LeaseFact(enum.Enum):
    """What happens to a lease."""

    HEARTBEAT = "heartbeat, full time again"
    DONE = "TaskDone, result stored"
    FAULT = "TaskFailed, the task raised"
    DEATH = "TaskFailed, the worker died"
    SILENCE = "no heartbeat for leases.ttl"
    HANDBACK = "TaskFailed, handed back"
    CANCELLED = "the scan is cancelled"


LEASE: Mapping[tuple[LeaseState, LeaseFact], LeaseState] = {
    (LeaseState.HELD, LeaseFact.HEARTBEAT): LeaseState.HELD,
    (LeaseState.HELD, LeaseFact.DONE): LeaseState.DONE,
    (LeaseState.HELD, LeaseFact.FAULT): LeaseState.FAILED,
    (LeaseState.HELD, LeaseFact.DEATH): LeaseState.LOST,
    (LeaseState.HELD, LeaseFact.SILENCE): LeaseState.LOST,
    (LeaseState.HELD, LeaseFact.HANDBACK): LeaseState.HANDED_BACK,
    (LeaseState.HELD, LeaseFact.CANCELLED): LeaseState.CANCELLED,
}
"""Every change of a lease. It ends once: what its worker says afterwards is answered `Stale` and changes nothing."""
