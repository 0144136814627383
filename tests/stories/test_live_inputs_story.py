"""Random stories of a task that begins before its scan has ended: files grow, needs lag, the scan ends early or as planned."""

import pathlib

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide.config.models import LeaseConfig, SourceConfig
from beamtide.files.row import FileFact
from beamtide.messages.metadata import ScanState
from beamtide.pump import Caller
from cluster_side.modalities.base import Output
from cluster_side.modalities.context import Alone
from cluster_side.worker.task.live_inputs import LiveInputs, LiveNews, LiveState, as_started, live_inputs_of, news_of
from tests.builders.scans import make_state
from tests.builders.sites import make_pipeline
from tests.builders.tasks import make_input, make_need, make_task
from tests.faults import load

SOURCE = SourceConfig(match="{scan}/*.h5", frames_per_task="scan", begin_with=1)
PLANNED = 24
FIRST = make_input("s/0.h5", 0, 6)


def state(points: int, phase: str) -> ScanState:
    return make_state(phase, points)


def name(number: int) -> str:
    return f"s/s_{number:05d}.h5"


@settings(max_examples=200)
@given(data=st.data())
def test_what_is_usable_grows_without_gap_and_ends_with_the_scan(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    measured = data.draw(st.integers(1, PLANNED))
    broken = data.draw(st.sets(st.integers(0, len(counts) - 1), max_size=1))
    whole = [FileFact(name(at), 0, "broken") if at in broken else FileFact(name(at), n) for at, n in enumerate(counts)]
    there = [FileFact(name(0), 0)]
    taken, complete, over = [], 0, False
    for _ in range(data.draw(st.integers(1, 6))):
        there = whole[: data.draw(st.integers(max(1, len(there)), len(whole)))]
        complete = data.draw(st.integers(complete, PLANNED))
        news = news_of(LiveState(state(PLANNED, "running"), there, complete, quiet=True), SOURCE, PLANNED, taken)
        taken += news.pieces
        assert had(taken) <= complete, "a need was not complete"
        assert not news.over or (sum(counts) >= PLANNED and complete == PLANNED), "a scan that runs is not over"
    points, before = measured, had(taken)
    for complete, quiet in ((points - 1, True), (points, False), (points, True)):
        news = news_of(LiveState(state(points, "ended"), whole, complete, quiet), SOURCE, PLANNED, taken)
        taken += news.pieces
        assert not (news.over and complete < points)
        over = news.over
    assert over, "it would wait for ever"
    assert [piece.start for piece in taken] == [0, *(piece.stop for piece in taken[:-1])]
    assert had(taken) == max(points, before), "the scan ended behind what was taken, or short of it"
    places = {(piece.path, piece.start - piece.first) for piece in taken if not piece.trouble}
    assert len(places) == len({path for path, _ in places}), "a file in two places"
    read = [(piece.path, piece.first + at) for piece in taken if not piece.trouble for at in range(piece.stop - piece.start)]
    assert read == [frame for frame in in_order(whole) if frame in set(read)], "a frame twice, or out of order"


def test_a_file_stays_where_it_was_taken() -> None:
    """Of four files with one frame each, three were taken as they came; the fourth shows that six belonged into each."""
    facts = [FileFact(name(at), count) for at, count in enumerate((1, 1, 1, 4))]
    live = news_of(LiveState(state(PLANNED, "running"), facts[:3], 2, quiet=True), SOURCE, PLANNED, ())
    assert [(piece.start, piece.path) for piece in live.pieces] == [(0, name(0)), (1, name(1))]
    later = news_of(LiveState(state(19, "ended"), facts, 19, quiet=True), SOURCE, PLANNED, live.pieces)
    assert [(piece.start, piece.stop) for piece in later.pieces] == [(2, 19)]
    assert later.pieces[0].trouble.startswith("s/s_00001.h5 was taken for indexes from 1 on, and by what its neighbours hold")
    assert later.over


def had(taken: list) -> int:
    return taken[-1].stop if taken else 0


def in_order(facts: list[FileFact]) -> list[tuple[str, int]]:
    return [(fact.path, frame) for fact in facts for frame in range(fact.frames)]


def test_a_file_that_never_came_is_waited_for_and_then_left_out() -> None:
    facts = [FileFact(name(0), 6), FileFact(name(2), 6)]
    running = news_of(LiveState(state(18, "ended"), facts, 18, quiet=False), SOURCE, PLANNED, ())
    assert ([(piece.start, piece.stop) for piece in running.pieces], running.over) == ([(0, 6)], False)
    closed = news_of(LiveState(state(18, "ended"), facts, 18, quiet=True), SOURCE, PLANNED, running.pieces)
    assert [(piece.start, piece.stop, bool(piece.trouble)) for piece in closed.pieces] == [(6, 12, True), (12, 18, False)]
    assert closed.over


def test_rows_without_a_frame_are_no_numbers() -> None:
    pieces = news_of(
        LiveState(state(18, "ended"), [FileFact(name(0), 6), FileFact(name(2), 6)], 18, quiet=True), SOURCE, PLANNED, ()
    )
    live = LiveInputs(make_task(stop=PLANNED), SOURCE, None, None, Alone(), None, taken=list(pieces.pieces))  # type: ignore[arg-type]
    declared = (Output("x", "m"), Output("object", "", per="scan", merge="first"))
    found = live.placed({"x": np.arange(12.0), "object": np.ones((2, 2))}, declared)
    expected = np.full(PLANNED, np.nan)
    expected[:6], expected[12:18] = np.arange(6), np.arange(6, 12)
    np.testing.assert_array_equal(found["x"], expected)
    assert found["object"].shape == (2, 2)


def test_a_bundle_of_a_task_that_began_early_has_what_it_began_with() -> None:
    early = make_task(stop=PLANNED, inputs=(FIRST, make_input("s/1.h5", 2, 4)))
    assert as_started(early).stop == 8
    whole = make_task(stop=6, inputs=(FIRST,))
    assert as_started(whole) == whole


def test_a_task_that_has_all_of_its_inputs_is_read_as_ever(tmp_path: pathlib.Path) -> None:
    """Also where the pipeline file has come to say begin_with since it was submitted."""
    pipeline = make_pipeline("p", modality="ptychography", source=SOURCE)
    deployment = load.site(tmp_path, LeaseConfig()).model_copy(update={"pipelines": {"p": pipeline}})
    with Caller() as caller:
        assert live_inputs_of(make_task(stop=6, inputs=(FIRST,)), deployment, caller, Alone()) is None
        early = make_task(stop=PLANNED, inputs=(FIRST,))
        assert live_inputs_of(early, deployment, caller, Alone()) is not None
        waits = msgspec.structs.replace(early, stop=6, needs=(make_need(3, "q"),))
        assert live_inputs_of(waits, deployment, caller, Alone()) is not None


def test_what_rank_0_tells_survives_the_wire() -> None:
    news = news_of(LiveState(state(18, "ended"), [FileFact(name(0), 6)], 18, quiet=True), SOURCE, PLANNED, ())
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(news), type=LiveNews) == news
