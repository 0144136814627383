"""The trials behind a verdict are shared among ranks: each is done once, all ranks know all answers, none lacks a frame."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide.errors import BadInput
from cluster_side.modalities.context import Alone, Context, Team
from cluster_side.modalities.ptychography import assessment
from cluster_side.modalities.ptychography.cross_validation import BlindTrial, left_outs, shared
from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.reconstruction import Means, Reconstruction
from cluster_side.modalities.ptychography.scan import scan_of
from cluster_side.modalities.ptychography.spec import PtychographySettings
from tests import ptycho_objects as objects

WORLD = objects.simulate(objects.cells, objects.zone_plate, side=5, size=32, step=4.0)
PROBE = WORLD.probe[None].astype(np.complex64)
EVERY = np.arange(len(WORLD.frames))


class ThreadTeam:
    """One of several ranks that are threads of this process."""

    def __init__(self, rank: int, lists: list[Any], meeting: threading.Barrier) -> None:
        self.rank, self.size = rank, len(lists)
        self._lists, self._meeting = lists, meeting

    def add_up(self, arrays: list[Any]) -> None:
        self._lists[self.rank] = [np.array(array) for array in arrays]
        self._meeting.wait(30)
        sums = [np.sum([each[number] for each in self._lists], axis=0) for number in range(len(arrays))]
        self._meeting.wait(30)
        for array, total in zip(arrays, sums, strict=True):
            array[...] = total

    def told(self, text: bytes) -> bytes:
        raise NotImplementedError


def on_ranks(size: int, do: Callable[[Team], Any]) -> list[Any]:
    lists, meeting = [None] * size, threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: do(ThreadTeam(rank, lists, meeting)), range(size)))


def job_for(team: Team, **more: Any) -> Reconstruction:
    model = PtychographySettings(**WORLD.settings(**more))
    means = Means(model, Context(team, note=lambda _: None), numpy_backend(), PROBE)
    return Reconstruction(means, scan_of(WORLD.arrays(), model, None, team))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=9), st.integers(1, 4))
def test_each_task_is_done_once_and_all_know_the_answers(lengths: list[int], ranks: int) -> None:
    done = []

    def task(number: int, length: int) -> np.ndarray:
        done.append(number)
        return np.arange(length) + 10.0 * number

    tasks = [partial(task, number, length) for number, length in enumerate(lengths)]
    answers = on_ranks(ranks, lambda team: shared(job_for(team), tasks))
    assert sorted(done) == list(range(len(tasks)))
    for answer in answers:
        assert [one.tolist() for one in answer] == [(np.arange(n) + 10.0 * k).tolist() for k, n in enumerate(lengths)]


def test_what_one_rank_cannot_do_is_the_reason_for_all() -> None:
    def bad() -> np.ndarray:
        raise BadInput("no room for one position")

    def told(team: Team) -> str:
        with pytest.raises(BadInput) as raised:
            shared(job_for(team), [lambda: np.zeros(2), bad, lambda: np.zeros(1)])
        return str(raised.value)

    assert on_ranks(2, told) == ["no room for one position"] * 2


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_no_rank_lacks_a_frame_of_what_it_is_asked_about(ranks: int) -> None:
    which = np.array([0, 3, 4, 11, 24])

    def gathered(team: Team) -> np.ndarray:
        job = job_for(team).gathered(which)
        assert job.team.size == 1
        return job.scan.prepared.of(job.scan.known[which])

    for found in on_ranks(ranks, gathered):
        np.testing.assert_array_equal(found, WORLD.frames[which])


def test_a_frame_that_is_not_here_is_not_replaced_by_another_one() -> None:
    def asked(team: Team) -> None:
        with pytest.raises(AssertionError, match="a frame that is not here"):
            job_for(team).scan.prepared.of(EVERY)

    on_ranks(2, asked)


def test_any_number_of_ranks_is_told_the_same() -> None:
    def told(team: Team) -> np.ndarray:
        job = job_for(team).gathered(EVERY)
        return left_outs([BlindTrial(job, EVERY, PROBE, folds, "LSQML 2") for folds in (2, 1)])[0].unseen

    (alone,), several = on_ranks(1, told), on_ranks(3, told)
    for found in several:
        np.testing.assert_allclose(found, alone, rtol=1e-4)


def test_the_best_way_of_each_kind_is_tried() -> None:
    """Of wrong axes, the right ones; else a wrong sign would look like no other was better."""
    job = job_for(Alone(), flip=(-1, 1)).gathered(EVERY)
    ways = assessment.wrong_ways(job, EVERY, PROBE)
    best = assessment.best_ways(job, EVERY, PROBE)
    assert best.keys() == ways.keys() == {"smaller", "larger", "axes"}
    assert ways["axes"][best["axes"]][0].scan.flip == (-1, 1), "settings stay"
    tried = [float(left_outs([BlindTrial(other, EVERY, one, 1)])[0].unseen.sum()) for other, one in ways["axes"]]
    assert best["axes"] == int(np.argmin(tried))


def test_what_lies_far_from_the_middle_is_no_support() -> None:
    """`moved` keeps the positions that it leaves out, outside the object."""
    scan = job_for(Alone()).scan
    apart, few = 10 * scan.pixels, scan.middle(1)
    near = scan.moved(apart, few)
    disc = near.near(3.0)
    row, column = np.rint(near.pixels[few[0]] + 16).astype(int)
    assert disc[row, column] == 1
    assert disc.sum() == np.sum(np.hypot(*np.mgrid[-4:5, -4:5]) <= 3), "one position is near, the others are outside"
