"""What one rank of a team cannot do, none does; what some of them cannot read, all know. Ranks are threads here."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide.errors import BadInput
from beamtide.formats.base import LostFrames, Missing
from cluster_side.modalities.context import all_lost, gathered, together


class Threads:
    """A team of threads, which add up as MPI does."""

    def __init__(self, rank: int, barrier: threading.Barrier, board: list[list[Any]]) -> None:
        self.rank, self.size, self._barrier, self._board = rank, len(board), barrier, board

    def add_up(self, arrays: list[Any]) -> None:
        self._board[self.rank] = [array.copy() for array in arrays]
        self._barrier.wait(10)
        total = [sum(part[at] for part in self._board) for at in range(len(arrays))]
        self._barrier.wait(10)
        for array, one in zip(arrays, total, strict=True):
            array[...] = one

    def told(self, text: bytes) -> bytes:
        raise NotImplementedError


def on_all(size: int, do: Callable[[Threads], Any]) -> list[Any]:
    barrier, board = threading.Barrier(size), [[] for _ in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: do(Threads(rank, barrier, board)), range(size)))


REASONS = st.text(max_size=30)
LOST = st.lists(st.builds(lambda at, why: Missing(at, at + 1, why), st.integers(0, 9**9), REASONS), min_size=1, max_size=5)
ENDS = st.one_of(st.integers(), st.builds(BadInput, REASONS), LOST.map(lambda lost: LostFrames(tuple(lost))))


@given(st.lists(ENDS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_all_ranks_end_alike(ends: list[Any]) -> None:
    def do(team: Threads) -> Any:
        def mine() -> Any:
            if isinstance(ends[team.rank], BadInput):
                raise ends[team.rank]
            return ends[team.rank]

        try:
            return together(team, mine)
        except BadInput as error:
            return error

    found = on_all(len(ends), do)
    refused = [one for one in ends if isinstance(one, BadInput) and not isinstance(one, LostFrames)]
    lost = tuple(missing for one in ends if isinstance(one, LostFrames) for missing in one.missing)
    for end, one in zip(found, ends, strict=True):
        if refused:
            assert (type(end), str(end)) == (BadInput, str(refused[0]))
        elif lost:
            assert end.missing == lost
        else:
            assert end == one


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_what_the_ranks_pass_is_known_to_all(texts: list[bytes]) -> None:
    assert on_all(len(texts), lambda team: gathered(team, texts[team.rank])) == [texts] * len(texts)
    missing = [tuple(Missing(number, number + 1, "x") for number in range(len(text))) for text in texts]
    whole = tuple(one for part in missing for one in part)
    assert on_all(len(texts), lambda team: all_lost(team, missing[team.rank])) == [whole] * len(texts)
    assert np.float32(1 << 24) == 1 << 24, "lengths are counted in 32-bit numbers"
