"""The context of a computation: the ranks that compute together, and the viewers that watch.

A kernel of a modality with `context=True` is called with its arrays and a `Context`. A team is one process alone, or the ranks of
an MPI program, which add up their partial sums; every operator that needs all indexes is a sum over them, so two methods are
enough.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import msgspec
import numpy as np

from beamtide.errors import BadInput
from beamtide.formats.base import LostFrames, Missing

Made = TypeVar("Made")
LONGEST = 1000
"""The most bytes of an error message sent from one rank to the others."""


class Team(Protocol):
    """The ranks of one computation."""

    @property
    def rank(self) -> int:
        """The number of this rank, from 0."""
        ...

    @property
    def size(self) -> int:
        """The number of ranks."""
        ...

    def add_up(self, arrays: list[Any]) -> None:
        """Replace each array, in place, by its sum over all ranks; all call this with the same shapes in the same order."""
        ...

    def told(self, text: bytes) -> bytes:
        """Return the bytes that rank 0 passes; the others pass b""."""
        ...


def together(team: Team, do: Callable[[], Made]) -> Made:
    """Return the result of `do` on each rank; if it raises BadInput on one, raise it on all, with the message of the first.

    Frames that cannot be read (LostFrames) are those of all ranks.
    """
    made, said = None, b""
    try:
        made = do()
    except LostFrames as error:
        said = _LOST + msgspec.json.encode(error.missing)
    except BadInput as error:
        said = _BAD + str(error).encode()[:LONGEST]
    texts = [text for text in gathered(team, said) if text]
    if not texts:
        return cast(Made, made)
    for text in texts:
        if text.startswith(_BAD):
            raise BadInput(text[1:].decode(errors="replace"))
    raise LostFrames(tuple(one for text in texts for one in _decoded(text[1:])))


def all_lost(team: Team, mine: tuple[Missing, ...]) -> tuple[Missing, ...]:
    """Return the frames that cannot be read which the ranks have found; the same on all of them."""
    return tuple(one for text in gathered(team, msgspec.json.encode(mine)) for one in _decoded(text))


def gathered(team: Team, mine: bytes) -> list[bytes]:
    """Return what each rank passes, in their order; on all of them."""
    lengths = np.zeros(team.size, np.float32)
    lengths[team.rank] = len(mine)
    team.add_up([lengths])
    ends = np.cumsum(lengths.astype(int)).tolist()
    whole = np.zeros(ends[-1], np.float32)
    whole[ends[team.rank] - len(mine) : ends[team.rank]] = list(mine)
    if whole.size:
        team.add_up([whole])
    text = whole.astype(np.uint8).tobytes()
    return [text[begin:end] for begin, end in itertools.pairwise([0, *ends])]


_LOST, _BAD = b"L", b"B"
_decoded = msgspec.json.Decoder(tuple[Missing, ...]).decode


class Feed(Protocol):
    """The inputs of a scan that is still being measured. All ranks call it in the same order, and get the same."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        ...

    @property
    def share(self) -> float:
        """The share of the planned scan that has been measured, from 0 to 1."""
        ...

    def more(self, wait: float) -> Mapping[str, Any] | None:
        """Return the arrays of all indexes so far once there are more, or will be no more of them; None after `wait` seconds."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def add_up(self, arrays: list[Any]) -> None:
        """Do nothing: there is one rank."""

    def told(self, text: bytes) -> bytes:
        """Return `said`."""
        return text


def _nobody(datasets: Mapping[str, Any], progress: float) -> None:
    """Do nothing: nobody watches."""


@dataclass(frozen=True, slots=True)
class Context:
    """A team, and how to show intermediate results."""

    team: Team = field(default_factory=Alone)
    local_rank: int = 0
    """The number of this rank on its node: selects the GPU."""
    tell: Callable[[Mapping[str, Any], float], None] = _nobody
    """Called with preview datasets (may be none) and progress from 0 to 1. Only rank 0 passes them on."""
    note: Callable[[str], None] = print
    """Called with one sentence for the job's log."""
    feed: Feed | None = None
    """The further inputs of a scan that has not ended; None: the kernel was given all inputs."""


ALONE = Context()
