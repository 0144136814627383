"""Random stories: files come in any order, grow, break or never come; every index ends in one task, also after a restart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.task_plan import bound, plan, remarks, void_plan
from beamtide.config.models import PipelineConfig
from beamtide.files.row import FileFact, late_start
from beamtide.formats.natural import natural
from beamtide.messages.base import Digest
from beamtide.messages.metadata import ScanState
from beamtide.messages.tasks import Task
from tests.builders.scans import make_scan, make_state
from tests.builders.sites import make_pipeline

DIGEST = Digest("ab" * 32)


def pipeline(size: str | int, **more: int | str) -> PipelineConfig:
    return make_pipeline(source={"match": "{scan}/*.nxs", "frames_per_task": size, **more}, inputs=["encoders/x"])


def state(shape: tuple[int, ...], points: int, phase: str = "running") -> ScanState:
    return make_state(phase, points, scan=make_scan(shape=shape))


def name(number: int) -> str:
    return f"s/s_{number:05d}.nxs"


def covered(tasks: list[Task]) -> list[int]:
    return sorted(index for task in tasks for index in range(task.start, task.stop))


def frames_of(tasks: list[Task]) -> dict[int, tuple[str, int]]:
    """Index -> (file, frame)."""
    found: dict[int, tuple[str, int]] = {}
    for task in tasks:
        at = task.start
        for part in task.inputs:
            for frame in range(part.first, part.last):
                found[at] = (part.path, frame)
                at += 1
        assert task.void or at == task.stop
    return found


@settings(max_examples=300)
@given(data=st.data())
def test_every_index_is_covered_once_whatever_order_files_come_in(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 6))
    config = pipeline(data.draw(st.sampled_from(["line", "file", "scan", 1, 3])), frames_per_file="any")
    counts = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    order = data.draw(st.permutations(range(len(counts))))
    bad = data.draw(st.sets(st.sampled_from(range(1, len(counts) + 1)), max_size=2))
    planned = state((height, width), width * height)
    here: dict[str, FileFact] = {}
    said: dict[str, Task] = {}
    truth = {name(number): sum(counts[:number]) for number in range(len(counts))}
    for number in order:
        here[name(number)] = (
            FileFact(name(number), counts[number], "") if number not in bad else FileFact(name(number), 0, "broken")
        )
        if name(0) in here:  # the row has its beginning
            facts = sorted(here.values(), key=lambda fact: natural(fact.path))
            said |= {task.id: task for task in plan(planned, config, DIGEST, facts, closed=False)}
    for index, (path, frame) in frames_of(list(said.values())).items():
        assert index == truth[path] + frame, "a frame stands at a wrong index"
    last = plan(planned, config, DIGEST, sorted(here.values(), key=lambda fact: natural(fact.path)), closed=True)
    assert covered(last) == list(range(planned.points))
    everything = said | {task.id: task for task in last}
    assert covered(list(everything.values())) == list(range(planned.points)), "a restarted source says other tasks"
    assert all(task.needs[0].upto == task.stop for task in last)


def test_a_missing_file_is_waited_for_and_in_the_end_named() -> None:
    facts = [FileFact(name(0), 4), FileFact(name(2), 4)]
    waiting = plan(state((3, 4), 12), pipeline("line"), DIGEST, facts, closed=False)
    assert covered(waiting) == [0, 1, 2, 3]
    closed = plan(state((3, 4), 12, "ended"), pipeline("line"), DIGEST, facts, closed=True)
    assert [(task.start, task.stop, task.void) for task in closed] == [
        (0, 4, ""),
        (4, 8, "the file s/s_00001.nxs never came"),
        (8, 12, ""),
    ]


def test_a_file_that_grows_makes_one_task_per_file_only_when_it_is_whole() -> None:
    scan, config = state((3, 4), 12), pipeline("file")
    assert plan(scan, config, DIGEST, [FileFact(name(0), 2)], closed=False) == []
    grown = plan(scan, config, DIGEST, [FileFact(name(0), 4), FileFact(name(1), 1)], closed=False)
    assert [(task.start, task.stop) for task in grown] == [(0, 4)]


def test_a_line_cut_over_two_files_has_both_as_inputs() -> None:
    config = pipeline("line", frames_per_file="any")
    tasks = plan(state((2, 5), 10), config, DIGEST, [FileFact(name(0), 3), FileFact(name(1), 7)], closed=False)
    assert [[(part.path, part.first, part.last) for part in task.inputs] for task in tasks] == [
        [(name(0), 0, 3), (name(1), 0, 2)],
        [(name(1), 2, 7)],
    ]


def test_an_early_end_ignores_what_is_beyond_and_voids_what_never_came() -> None:
    tasks = plan(state((3, 4), 6, "ended"), pipeline("line"), DIGEST, [FileFact(name(0), 5)], closed=True)
    assert [(task.start, task.stop, task.void) for task in tasks] == [
        (0, 4, ""),
        (4, 5, ""),
        (5, 6, "no file came for these indexes"),
    ]
    frames = [FileFact(name(0), 50)]
    assert covered(plan(state((3, 4), 6), pipeline(4), DIGEST, frames, closed=True)) == list(range(8)), "its frames are there"


def test_frames_beyond_the_scan_are_told() -> None:
    source, row = pipeline("line").source, [FileFact(name(number), 7) for number in range(3)]
    assert remarks(state((3, 4), 12), source, row[:2]).startswith("the files hold 2 frames more than the scan has points (12)")
    assert remarks(state((3, 4), 8, "ended"), source, row[:1]) == "", "an early end does not make the files too long"
    assert remarks(state((2, 7), 14), source, row[:2]) == ""
    lacking = [row[0], FileFact(row[1].path, trouble="broken"), row[2]]
    assert remarks(state((2, 7), 14), source, lacking).startswith("the files hold 7 frames more"), "a broken file has its place"
    assert remarks(state((2, 7), 14), source, [row[0], row[2]]).startswith("the files hold 7 frames more")


@settings(max_examples=300)
@given(data=st.data())
def test_an_early_end_plans_nothing_that_overlaps_with_what_was_submitted_before(data: st.DataObject) -> None:
    """The detector ran on for a while, or the scan was stopped in the middle of a block that was submitted already."""
    width, height = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 6))
    config = pipeline(data.draw(st.sampled_from(["line", "file", 1, 3, 4])), frames_per_file="any")
    counts = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    facts = [FileFact(name(number), frames) for number, frames in enumerate(counts)]
    planned = state((height, width), width * height)
    submitted: dict[str, Task] = {}
    for seen in range(data.draw(st.integers(0, len(facts))) + 1):
        submitted |= {task.id: task for task in plan(planned, config, DIGEST, facts[:seen], closed=False)}
    ended = state((height, width), data.draw(st.integers(0, width * height)), "ended")
    last = {task.id: task for closed in (False, True) for task in plan(ended, config, DIGEST, facts, closed=closed)}
    indexes = covered(list((submitted | last).values()))
    assert len(indexes) == len(set(indexes)), "two tasks have one index"
    assert set(range(ended.points)) <= set(indexes)


def first(number: int | None) -> PipelineConfig:
    config = pipeline("line")
    return config.model_copy(update={"source": config.source.model_copy(update={"first": number})})


def test_a_first_file_that_never_came_is_named_and_no_frame_slips_forward() -> None:
    facts = [FileFact(name(2), 4), FileFact(name(3), 4)]
    assert plan(state((4, 4), 16), first(None), DIGEST, facts, closed=False) == [], "its frames might be those of another index"
    assert "s_00002.nxs" in late_start(facts, first(None).source)
    assert "source.first" in late_start(facts, first(None).source)
    closed = plan(state((4, 4), 16, "ended"), first(None), DIGEST, facts, closed=True)
    assert [(task.start, task.stop, task.void) for task in closed] == [
        (0, 4, "the file s/s_00000.nxs never came"),
        (4, 8, "the file s/s_00001.nxs never came"),
        (8, 12, ""),
        (12, 16, ""),
    ]


def test_files_that_are_numbered_on_from_the_scan_before_are_all_there() -> None:
    facts = [FileFact(name(7), 4), FileFact(name(8), 4)]
    closed = plan(state((2, 4), 8, "ended"), first(None), DIGEST, facts, closed=True)
    assert [(task.start, task.void, task.inputs[0].path) for task in closed] == [(0, "", name(7)), (4, "", name(8))]


def test_the_number_of_the_first_file_can_be_said() -> None:
    facts = [FileFact(name(7), 4), FileFact(name(8), 4)]
    assert covered(plan(state((2, 4), 8), first(7), DIGEST, facts, closed=False)) == list(range(8))
    missing = plan(state((3, 4), 12, "ended"), first(6), DIGEST, facts, closed=True)
    assert missing[0].void == "the file s/s_00006.nxs never came"
    assert late_start(facts, first(6).source) == ""


def test_a_number_that_counts_nothing_says_nothing() -> None:
    config = pipeline("line")
    for match, path in (("raw/scan_000008.h5", "raw/scan_000008.h5"), ("s/*.h5", "s/scan_1_xspress3.h5")):
        only = config.model_copy(update={"source": config.source.model_copy(update={"match": match})})
        assert covered(plan(state((2, 4), 8), only, DIGEST, [FileFact(path, 8)], closed=False)) == list(range(8))


def test_unusable_settings_void_the_whole_scan() -> None:
    tasks = void_plan(state((3, 4), 12, "ended"), pipeline("line"), DIGEST, "no such file")
    assert covered(tasks) == list(range(12))
    assert {task.void for task in tasks} == {"no such file"}


def test_a_scan_as_source_makes_one_task_of_all_points_when_it_has_ended() -> None:
    config = PipelineConfig.model_validate(
        {"pipeline": "phase", "modality": "dpc_phase", "source": {"kind": "scan"}, "inputs": ["dpc/angle_x", "encoders/x"]}
    )
    running = make_state(scan=make_scan(shape=(3, 4), snake=True))
    assert plan(running, config, DIGEST, [], closed=False) == []
    assert plan(state((3, 4), 0, "ended"), config, DIGEST, [], closed=True) == []
    ended = make_state("ended", 9, 2, scan=running.scan)
    (task,) = plan(ended, config, DIGEST, [], closed=True)
    assert (task.start, task.stop, task.shape, task.snake, task.inputs, task.void) == (0, 9, (3, 4), True, (), "")
    assert [(need.pipeline, need.dataset, need.upto) for need in task.needs] == [("dpc", "angle_x", 9), ("encoders", "x", 9)]
    bound_needs = bound(task, {"dpc": Digest("d1")}).needs
    assert [need.settings for need in bound_needs] == ["d1", ""]
    (forward,) = plan(ended, config.model_copy(update={"snake": False}), DIGEST, [], closed=True)
    assert not forward.snake, "the pipeline file says otherwise"


@settings(max_examples=200)
@given(data=st.data())
def test_a_task_that_begins_early_is_one_whatever_comes(data: st.DataObject) -> None:
    """The same task at any time, from the first look with enough frames on; its inputs are a prefix of the row that grows."""
    width, height = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    enough, counts = data.draw(st.integers(1, 20)), data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    config = pipeline("scan", begin_with=enough, frames_per_file="any")
    planned, measured = width * height, data.draw(st.integers(1, width * height))
    facts = [FileFact(name(number), count) for number, count in enumerate(counts)]
    said: list[Task] = []
    for there in range(len(facts) + 1):
        now = plan(state((height, width), planned), config, DIGEST, facts[:there], closed=False)
        assert bool(now) == (there > 0 and sum(counts[:there]) >= min(enough, planned))
        said += now
    said += plan(state((height, width), measured, "ended"), config, DIGEST, facts, closed=True)
    assert {(task.id, task.start, task.stop, task.void) for task in said} == {(said[-1].id, 0, planned, "")}
    for task in said:
        read = [(part.path, frame) for part in task.inputs for frame in range(part.first, part.last)]
        row = [(fact.path, frame) for fact in facts for frame in range(fact.frames)]
        assert read == row[: len(read)]
        assert 1 <= task.needs[0].upto <= max(enough, 1)
    assert said[-1].needs[0].upto <= measured, "the scan ended: nobody may wait for more positions than it has"


def test_a_task_that_should_begin_early_is_void_when_no_frame_came() -> None:
    tasks = plan(state((3, 4), 6, "ended"), pipeline("scan", begin_with=4), DIGEST, [], closed=True)
    assert [(task.start, task.stop, task.void) for task in tasks] == [(0, 6, "no file came for these indexes")]


@settings(max_examples=200)
@given(data=st.data())
def test_stitched_scans_never_mix_their_indexes(data: st.DataObject) -> None:
    """Whatever one of them lacks or has too many of: a frame of scan k lies at the indexes of scan k, at its own place there."""
    parts, lines, width = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    share = lines * width
    config = pipeline(data.draw(st.sampled_from(["line", "scan", 3])), frames_per_file="any")
    facts, numbers = [], {}
    for part in range(parts):
        counts = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
        lost = data.draw(st.sets(st.integers(0, len(counts) - 1), max_size=1)) if len(set(counts)) == 1 else set()
        for number, count in enumerate(counts):
            path = f"s{part}/s{part}_{number:05d}.nxs"
            numbers |= {(path, frame): part * share + sum(counts[:number]) + frame for frame in range(count)}
            facts += [FileFact(path, count, part=(part, parts))] if number not in lost else []
    if len({fact.part for fact in facts}) < parts or any(not fact.path.endswith("00000.nxs") for fact in firsts(facts)):
        return  # a scan of which no file came, or not the first: those have tests of their own
    scan = state((parts * lines, width), parts * share, "ended")
    tasks = plan(scan, config, DIGEST, facts, closed=True)
    assert covered(tasks) == list(range(parts * share))
    for index, frame in frames_of([task for task in tasks if not task.void]).items():
        assert index == numbers[frame]


def firsts(facts: list[FileFact]) -> list[FileFact]:
    return [fact for at, fact in enumerate(facts) if at == 0 or facts[at - 1].part != fact.part]


def test_a_stitched_scan_lacks_what_one_of_its_scans_lacks() -> None:
    """The second scan's first file is missing: its other files stay where they belong."""
    facts = [FileFact("a/a_0.nxs", 6, part=(0, 2)), FileFact("b/b_1.nxs", 3, part=(1, 2))]
    begun = pipeline("line", first=0)
    closed = plan(state((4, 3), 12, "ended"), begun, DIGEST, facts, closed=True)
    assert [(task.start, task.stop, task.void) for task in closed] == [
        (0, 3, ""),
        (3, 6, ""),
        (6, 9, "the file b/b_0.nxs never came"),
        (9, 12, ""),
    ]
    odd = plan(state((1, 5), 5, "ended"), begun, DIGEST, facts, closed=True)
    assert [task.void for task in odd] == ["5 points cannot be those of 2 scans of the same size; say --shape"]
