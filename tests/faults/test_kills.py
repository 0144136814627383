"""SIGKILL of anybody at any instant under load: distributor, buffers, sorters, sink, fence, metadata, workers, source (F1)."""

import pathlib

import pytest

from tests.faults.kills import rounds

pytestmark = pytest.mark.system
KILLS = 60


def test_nothing_is_lost_or_doubled_whoever_is_killed(tmp_path: pathlib.Path) -> None:
    count = rounds(tmp_path, seed=1, pause=0.03).run(KILLS)
    assert count.accepted > 100
    assert count.queued == 0
    assert count.dead > 0, "the poisoned tasks ended, too"
