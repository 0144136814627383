"""Random scans are cut into files as facilities cut them, and lose frames and files: no frame ever stands at a wrong index.

The truth is made by a detector that writes index after index into files and knows what it lost; the layout sees names and counts.
"""

import math
from collections.abc import Iterator

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beamline_side.cores.task_plan import contradiction, origins, plan, remarks
from beamtide.config.models import PipelineConfig
from beamtide.files.layout import laid_out
from beamtide.files.row import FileFact, steps
from beamtide.files.ways import ScanPoints
from beamtide.formats.base import Missing
from beamtide.formats.natural import natural
from beamtide.messages.base import Digest, ScanId
from beamtide.messages.metadata import Scan, ScanState
from beamtide.messages.tasks import Task

DIGEST = Digest("ab" * 32)
Truth = dict[tuple[str, int], int]
"""(file, frame) -> index."""


def pipeline(size: str | int = "line", match: str = "{scan}/*.h5", **more: object) -> PipelineConfig:
    source = {"match": match, "frames_per_task": size, **more}
    return PipelineConfig.model_validate({"pipeline": "p", "modality": "xrf", "source": source})


def state(shape: tuple[int, ...], points: int | None = None, phase: str = "ended") -> ScanState:
    measured = math.prod(shape) if points is None else points
    return ScanState(scan=Scan(id=ScanId("s"), shape=shape), phase=phase, points=measured, version=1)


def assigned(tasks: list[Task]) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield each index with its file and frame."""
    for task in tasks:
        at = task.start
        for part in task.inputs:
            for frame in range(part.first, part.last):
                yield at, (part.path, frame)
                at += 1


@st.composite
def scans(draw: st.DrawFn) -> tuple[tuple[int, ...], list[FileFact], Truth, int, int]:
    """A scan's shape, its files in order, the truth, how many frames a file was meant to hold, and the number of the first."""
    lines, width = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    size = draw(st.sampled_from(["line", "two lines", "fixed", "all"]))
    slot = {"line": width, "two lines": 2 * width, "fixed": draw(st.integers(1, 9)), "all": lines * width}[size]
    style = draw(st.sampled_from(["s/a_{:05d}.h5", "s/a_{}.h5", "s/line_{}/data_1.h5", "s/a_{}_data.h5"]))
    first = draw(st.integers(0, 1))
    facts, truth = [], {}
    for number, begin in enumerate(range(0, lines * width, slot)):
        count = min(slot, lines * width - begin)
        path = style.format(number + first)
        lost = draw(st.sampled_from([0, 0, 0, 1, 2]))
        kept = max(1, count - lost)
        truth |= {(path, frame): begin + frame for frame in range(kept)}
        if draw(st.integers(0, 5)):
            unwritten = draw(st.sampled_from([(), (), (Missing(kept - 1, kept, "never written"),)]))
            facts.append(FileFact(path, kept, missing=unwritten))
    shape = (lines, width) if draw(st.booleans()) and lines > 1 else (lines * width,)
    return shape, sorted(facts, key=lambda fact: natural(fact.path)), truth, slot, first


def meant(facts: list[FileFact], shape: tuple[int, ...], slot: int) -> bool:
    """Whether somebody who sees these files can mean what was meant: some file is full, and files are no odd part of a line."""
    width = shape[-1]
    near = len(shape) > 1 and slot != width and width < 2 * slot and slot < 2 * width
    return any(fact.frames == slot for fact in facts) and not near


def both_ends_are_missing(facts: list[FileFact], truth: Truth) -> bool:
    """Whether a file is missing at the beginning and one at the end: it may look as if more were missing at one of them."""
    paths = list(dict.fromkeys(path for path, _ in truth))
    return facts[0].path != paths[0] and facts[-1].path != paths[-1]


@settings(max_examples=500)
@given(scans(), st.sampled_from(["line", "file", "scan", 1, 3]))
def test_no_frame_stands_at_a_wrong_index_and_every_index_has_a_task(
    scan: tuple[tuple[int, ...], list[FileFact], Truth, int, int], size: str | int
) -> None:
    shape, facts, truth, slot, _ = scan
    assume(meant(facts, shape, slot) and (len(facts) > 1 or truth.get((facts[0].path, 0)) == 0))
    assume(not both_ends_are_missing(facts, truth))  # `source.first` says it
    tasks = plan(state(shape), pipeline(size), DIGEST, facts, closed=True)
    indexes = sorted(index for task in tasks for index in range(task.start, task.stop))
    assert indexes == list(range(math.prod(shape)))
    for index, frame in assigned(tasks):
        assert truth[frame] == index, f"{frame} is {truth[frame]} and stands at {index}"


@settings(max_examples=300)
@given(scans(), st.sampled_from(["line", 1, 3]))
def test_what_is_said_about_the_files_makes_all_of_them_certain(
    scan: tuple[tuple[int, ...], list[FileFact], Truth, int, int], size: str | int
) -> None:
    """With `frames_per_file` every frame that is there stands at its index, or it is said that nobody can tell."""
    shape, facts, truth, slot, first = scan
    assume(facts)
    config = pipeline(size, frames_per_file=slot, first=first if len(facts) > 1 else None)
    assume(truth[facts[0].path, 0] == 0 or len(facts) > 1)  # the number of a single file may be that of the scan
    found = dict(assigned(plan(state(shape), config, DIGEST, facts, closed=True)))
    assert all(truth[frame] == index for index, frame in found.items())
    there = {
        truth[fact.path, frame]
        for fact in facts
        for frame in range(fact.frames)
        if not any(lost.first <= frame < lost.last for lost in fact.missing)
    }
    if (
        len(steps(facts, config.source, math.prod(shape))) > 1
    ):  # the numbers may be those of frames: that is said, and no frame used
        there = set()
    assert found.keys() == there


@settings(max_examples=300)
@given(scans(), st.data())
def test_what_is_said_while_the_scan_runs_is_true_and_stays(
    scan: tuple[tuple[int, ...], list[FileFact], Truth, int, int], data: st.DataObject
) -> None:
    """Files come one after the other, the last one grows; what was said is never taken back, nor said otherwise."""
    shape, facts, truth, slot, _ = scan
    assume(meant(facts[:2], shape, slot) and facts[0].frames == slot)
    assume(truth[facts[0].path, 0] == 0)
    config, said = pipeline(data.draw(st.sampled_from(["line", "file", 2]))), dict[int, tuple[str, int]]()
    for count in range(1, len(facts) + 1):
        for grown in {data.draw(st.integers(1, facts[count - 1].frames)), facts[count - 1].frames}:
            now = [*facts[: count - 1], FileFact(facts[count - 1].path, grown)]
            for index, frame in assigned(plan(state(shape, phase="running"), config, DIGEST, now, closed=False)):
                assert truth[frame] == index
                assert said.setdefault(index, frame) == frame
    for index, frame in assigned(plan(state(shape), config, DIGEST, facts, closed=True)):
        assert said.get(index, frame) == frame


def pieces(counts: list[int], shape: tuple[int, ...], closed: bool = True, **source: object) -> list[tuple[int, int, str, str]]:
    facts = [FileFact(f"s/line_{number:05d}.h5", count) for number, count in enumerate(counts)]
    found = laid_out(facts, ScanPoints.of(math.prod(shape), shape), pipeline(**source).source, closed=closed)
    return [(one.start, one.stop, one.path[-4:-3], one.trouble) for one in found.pieces]


def test_a_short_line_leaves_a_hole_in_its_own_line() -> None:
    short = "s/line_00001.h5 holds 4 frames instead of 5: which of them was lost is not known"
    assert pieces([5, 4, 5, 5], (4, 5)) == [
        (0, 5, "0", ""),
        (5, 9, "1", ""),
        (9, 10, "", short),
        (10, 15, "2", ""),
        (15, 20, "3", ""),
    ]
    assert pieces([5, 4, 5], (4, 5), closed=False)[-1] == (10, 15, "2", ""), "the next line is full: nothing more comes of this"
    assert pieces([5, 4, 3], (4, 5), closed=False)[-1] == (5, 9, "1", ""), "it may still grow"
    assert [piece[:2] for piece in pieces([4, 4, 4, 4], (4, 5)) if piece[2]] == [(0, 4), (5, 9), (10, 14), (15, 19)]
    assert [piece[:2] for piece in pieces([6, 6, 6, 6], (4, 5))] == [(0, 5), (5, 10), (10, 15), (15, 20)]


def test_what_cannot_be_told_is_refused_from_there_on() -> None:
    for counts in ([5, 4, 5, 6], [3, 7, 5, 5], [7, 7, 3, 3]):
        found = pieces(counts, (4, 5))
        assert found[0][0] == 0
        assert "nobody can tell" in found[-1][3]
        assert "say source.frames_per_file" in found[-1][3]
        assert found[-1][1] == 20
    assert "nobody can tell" not in str(pieces([5, 4, 5, 6], (4, 5), frames_per_file="line"))
    assert [piece[:3] for piece in pieces([5, 4, 5, 6], (4, 5), frames_per_file="any")] == [
        (0, 5, "0"),
        (5, 9, "1"),
        (9, 14, "2"),
        (14, 20, "3"),
    ]


def test_files_whose_names_count_nothing_do_not_say_which_of_them_is_missing() -> None:
    facts = [FileFact(f"s/2026-01-0{day}T10_0{minute}.h5", 5) for day, minute in ((1, 1), (1, 4), (2, 2))]
    config = pipeline()
    tasks = plan(state((4, 5)), config, DIGEST, facts, closed=True)
    assert "nobody can tell" in tasks[-1].void
    assert not plan(state((3, 5)), config, DIGEST, facts, closed=True)[-1].void, "all are there"


def test_frames_that_were_never_written_are_no_frames() -> None:
    fact = FileFact("s/all.h5", 6, missing=(Missing(2, 3, "never"), Missing(4, 6, "never")))
    running = plan(state((6,), phase="running"), pipeline(1, "s/all.h5"), DIGEST, [fact], closed=False)
    assert [task.start for task in running] == [0, 1], "not yet"
    tasks = plan(state((6,)), pipeline("scan", "s/all.h5"), DIGEST, [fact], closed=True)
    assert [(task.start, task.stop, task.void) for task in tasks] == [(0, 2, ""), (2, 3, "never"), (3, 4, ""), (4, 6, "never")]
    assert [frame for _, (_, frame) in assigned(tasks)] == [0, 1, 3]


@settings(max_examples=200)
@given(data=st.data())
def test_the_detectors_own_count_decides(data: st.DataObject) -> None:
    """Eiger data files (image_nr_low): any of them may be missing or short, and no other moves."""
    points, per = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 7))
    facts, truth = [], {}
    for number, begin in enumerate(range(0, points, per), 1):
        count = min(per, points - begin) - data.draw(st.sampled_from([0, 0, 1]))
        if count > 0 and data.draw(st.integers(0, 3)):
            path = f"s/s_data_{number:06d}.h5"
            facts.append(FileFact(path, count, count=begin))
            truth |= {(path, frame): begin + frame for frame in range(count)}
    assume(len(facts) > 1)
    found = dict(assigned(plan(state((points,)), pipeline("scan", first=1), DIGEST, facts, closed=True)))
    assert {frame: index for index, frame in found.items()} == truth


def test_too_many_frames_in_lines_are_told() -> None:
    facts = [FileFact(f"s/line_{number}.h5", 6) for number in range(4)]
    assert "s/line_0.h5 holds 6 frames instead of 5" in remarks(state((4, 5)), pipeline().source, facts)


def test_a_file_that_would_move_to_another_place_is_a_contradiction() -> None:
    facts = [FileFact("s/a.h5", 5), FileFact("s/b.h5", 5)]
    config = pipeline(5, frames_per_file="any")
    tasks = plan(state((10,)), config, DIGEST, facts, closed=True)
    known = {path: origin for task in tasks for path, origin in origins(task)}
    assert known == {"s/a.h5": 0, "s/b.h5": 5}
    assert contradiction(tasks, known) == ""
    grown = plan(state((10,)), config, DIGEST, [FileFact("s/a.h5", 6), facts[1]], closed=True)
    assert "s/b.h5 was taken for indexes from 5 on, and by what its neighbours hold now it would begin at 6" in contradiction(
        grown, known
    )


def stack(*shapes: tuple[int, ...], scan: tuple[int, ...], closed: bool = True, **options: str) -> list[Task]:
    facts = [FileFact(f"s/a_{number}.h5", shape[0], shape=shape) for number, shape in enumerate(shapes)]
    config = pipeline("scan", options={"spectra": "/d", **options})
    return plan(state(scan, phase="ended" if closed else "running"), config, DIGEST, facts, closed=closed)


def test_an_array_of_lines_and_columns_is_understood_or_refused() -> None:
    (task,) = stack((3, 4, 2048), scan=(3, 4))
    assert [(part.first, part.last, part.options["point_axes"]) for part in task.inputs] == [(0, 12, "2")]
    assert stack((3, 4, 2048), scan=(3, 4), closed=False) == [], "three frames of four detectors, so far?"
    for shapes in ([(4, 3, 2048)], [(6, 2)], [(1, 4, 2048)] * 3):
        (task,) = stack(*shapes, scan=(3, 4))
        assert "(frame, detector, channel)" in task.void
        assert "point_axes" in task.void
    assert [task.void for task in stack((4, 3, 2048), scan=(3, 4), point_axes="1")] == ["", "no file came for these indexes"]
    (task,) = stack((12, 4, 2048), scan=(3, 4))
    assert (task.inputs[0].last, task.inputs[0].options) == (12, {"spectra": "/d"})


def test_times_of_day_in_names_do_not_say_which_file_is_missing() -> None:
    facts = [FileFact(f"s/scan_{time}.h5", 5) for time in (120301, 120305, 120400)]
    assert "nobody can tell" in plan(state((4, 5)), pipeline(), DIGEST, facts, closed=True)[0].void
