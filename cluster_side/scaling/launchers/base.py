"""What every batch system can do for us: three verbs.

A launcher knows jobs only by the ids that it returned. A phase that it cannot find out is `UNKNOWN`, never a guess.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class JobPhase(enum.Enum):
    """How far a job is; FAILED is an end with a non-zero exit code or without one."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job: what it runs, and the token by which we find it again."""

    pipeline: str
    slots: int
    tasks: int
    token: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


class Launcher(Protocol):
    """A batch system."""

    def submit(self, specs: Sequence[JobSpec]) -> tuple[str, ...]:
        """Start these jobs and return their ids, in the same order."""
        ...

    def phases(self, ids: Sequence[str]) -> dict[str, JobPhase]:
        """Return the phase of each job."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask these jobs to leave; returns at once."""
        ...
