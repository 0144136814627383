"""Calls to the batch system and their results, as values."""

from dataclasses import dataclass
from typing import TypeAlias

from cluster_side.scaling.launchers.base import JobListing, JobOrder, SubmitAnswer


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit an order."""

    order: JobOrder


@dataclass(frozen=True, slots=True)
class Look:
    """Look at all jobs."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel jobs."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to an order."""

    token: str
    answer: SubmitAnswer


BatchCall: TypeAlias = Submit | Look | Cancel


Result: TypeAlias = Answered | JobListing
