"""Random stories: files come in any order, grow, break or never come; every index ends in one task, also after a restart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.file_tasks import FileFact, natural, plan, void_plan
from beamtide.config import PipelineConfig
from beamtide.messages.base import Digest, ScanId
from beamtide.messages.metadata import Scan, ScanState
from beamtide.messages.tasks import Task

DIGEST = Digest("ab" * 32)


def pipeline(size: str | int) -> PipelineConfig:
    source = {"match": "{scan}/*.nxs", "frames_per_task": size}
    return PipelineConfig.model_validate({"pipeline": "xrf", "modality": "xrf", "source": source, "inputs": ["encoders/x"]})


def state(shape: tuple[int, ...], points: int, phase: str = "running") -> ScanState:
    return ScanState(scan=Scan(id=ScanId("s"), shape=shape), phase=phase, points=points, version=1)


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


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_index_is_covered_once_whatever_order_files_come_in(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 6))
    config = pipeline(data.draw(st.sampled_from(["line", "file", 1, 3])))
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
    tasks = plan(state((2, 5), 10), pipeline("line"), DIGEST, [FileFact(name(0), 3), FileFact(name(1), 7)], closed=False)
    assert [[(part.path, part.first, part.last) for part in task.inputs] for task in tasks] == [
        [(name(0), 0, 3), (name(1), 0, 2)],
        [(name(1), 2, 7)],
    ]


def test_an_early_end_ignores_what_is_beyond_and_voids_what_never_came() -> None:
    tasks = plan(state((3, 4), 6, "ended"), pipeline("line"), DIGEST, [FileFact(name(0), 5)], closed=True)
    assert [(task.start, task.stop, task.void) for task in tasks] == [(0, 4, ""), (4, 5, ""), (5, 6, "no file came for them")]
    assert covered(plan(state((3, 4), 6), pipeline(4), DIGEST, [FileFact(name(0), 50)], closed=True)) == list(range(6))


def test_unusable_settings_void_the_whole_scan() -> None:
    tasks = void_plan(state((3, 4), 12, "ended"), pipeline("line"), DIGEST, "no such file")
    assert covered(tasks) == list(range(12))
    assert {task.void for task in tasks} == {"no such file"}
