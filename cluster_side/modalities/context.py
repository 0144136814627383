"""What a long computation has around it: those who compute with it, and those who watch.

A kernel of a modality with `context=True` is called with its arrays and a `Context`. A team is one process alone, or the ranks of
an MPI program that add up what each has summed; every operator that needs all indexes is a sum over them, so it needs two verbs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from beamtide.errors import BadInput

Made = TypeVar("Made")
LONGEST = 1000
"""Bytes of a sentence that travels from one rank to the others."""


class Team(Protocol):
    """The ranks of one computation."""

    @property
    def rank(self) -> int:
        """Our number, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many we are."""
        ...

    def add_up(self, arrays: list[Any]) -> None:
        """Replace each array, in place, by its sum over all ranks; all call this with the same shapes in the same order."""
        ...

    def told(self, text: bytes) -> bytes:
        """Return what rank 0 says; the others say b""."""
        ...


def together(team: Team, do: Callable[[], Made]) -> Made:
    """Return what is done on each rank; BadInput on all of them, with the sentence of the first, where it is raised on one."""
    made, said = None, b""
    try:
        made = do()
    except BadInput as error:
        said = str(error).encode()[:LONGEST]
    failed = np.zeros(team.size, np.float32)
    failed[team.rank] = bool(said)
    team.add_up([failed])
    if not failed.any():
        return cast(Made, made)
    text = np.zeros(LONGEST, np.float32)
    if team.rank == int(np.argmax(failed)):
        text[: len(said)] = list(said)
    team.add_up([text])
    raise BadInput(text.astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="replace"))


class Feed(Protocol):
    """What comes of a scan that is still being measured. All ranks call it in the same order, and get the same."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        ...

    @property
    def share(self) -> float:
        """How much of the planned scan is there, from 0 to 1."""
        ...

    def more(self, wait: float) -> Mapping[str, Any] | None:
        """Return the arrays of all indexes so far once there are more, or will be no more of them; None after `wait` seconds."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def add_up(self, arrays: list[Any]) -> None:
        """There is nobody to add to."""

    def told(self, text: bytes) -> bytes:
        """Return what we say."""
        return text


def _nobody(datasets: Mapping[str, Any], progress: float) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Context:
    """A team, and how to tell what there is so far."""

    team: Team = field(default_factory=Alone)
    local_rank: int = 0
    """Our number among the ranks of this node: which GPU is ours."""
    tell: Callable[[Mapping[str, Any], float], None] = _nobody
    """Takes datasets for people to look at meanwhile (may be none), and progress from 0 to 1. Only rank 0 tells."""
    note: Callable[[str], None] = print
    """Takes one sentence for the job's log."""
    feed: Feed | None = None
    """Brings what is still to come of a scan that has not ended; None: the kernel was given all there is."""


ALONE = Context()
