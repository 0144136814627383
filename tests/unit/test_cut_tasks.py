"""An index has one task: whatever is submitted, cut in whatever way and order, the tasks that are taken cover it once."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.distributor.cut_task import cut
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamtide.machine import Heard, Send
from beamtide.messages.base import Digest, Message, Ok, PipelineName, ScanId, TaskId
from beamtide.messages.tasks import InputFile, Need, Pulled, PullRequest, SubmitRequest, Task
from tests.stories.shelf import Shelf

DIGEST = Digest("ab" * 32)


def task_of(start: int, stop: int, **more: object) -> Task:
    inputs = (InputFile(root="raw", path=f"{start // 10}.h5", format="hdf5", first=start, last=stop),)
    base = Task(
        id=TaskId(f"s/p/ab/{start:06d}-{stop:06d}"),
        scan=ScanId("s"),
        pipeline=PipelineName("p"),
        modality="m",
        start=start,
        stop=stop,
        inputs=inputs,
        settings=DIGEST,
        needs=(Need(pipeline=PipelineName("other"), dataset="x", upto=stop),),
    )
    return msgspec.structs.replace(base, **more)


class Entry:
    """A distributor on a shelf, and what it has taken."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.start()

    def start(self) -> None:
        self.machine = DistributorMachine({"p": "m"}, self.shelf)

    def tell(self, message: Message) -> list[Message]:
        effects = self.shelf.batch(self.machine, [Heard(b"peer", message)], 0.0)
        return [effect.message for effect in effects if isinstance(effect, Send)]

    def submit(self, *tasks: Task) -> None:
        assert self.tell(SubmitRequest(tasks=tasks)) == [Ok()]

    def taken(self) -> list[Task]:
        (pulled,) = self.tell(PullRequest(pipeline=PipelineName("p"), after=0, credit=10_000, wait=0.0))
        assert isinstance(pulled, Pulled)
        return [entry.task for entry in pulled.entries if entry.task is not None]


@settings(max_examples=200)
@given(data=st.data())
def test_the_cut_of_a_scan_may_change_at_any_time(data: st.DataObject) -> None:
    """`frames_per_task` changes in mid-scan, the source starts again, and so does the distributor: each index has one task."""
    points, entry = data.draw(st.integers(1, 40)), Entry()
    for _ in range(data.draw(st.integers(1, 4))):
        size, seen = data.draw(st.integers(1, 15)), data.draw(st.integers(0, points))
        new = [task_of(at, min(at + size, points)) for at in range(0, seen, size)]
        entry.submit(*data.draw(st.permutations(new)), *data.draw(st.sampled_from([(), (task_of(0, points),)])))
        if data.draw(st.booleans()):
            entry.start()
    entry.submit(*(task_of(at, min(at + 7, points)) for at in range(0, points, 7)))
    tasks = entry.taken()
    assert sorted(index for task in tasks for index in range(task.start, task.stop)) == list(range(points))
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        frames = [frame for part in task.inputs for frame in range(part.first, part.last)]
        assert frames == list(range(task.start, task.stop)), "frame i belongs to index i here"
        assert all(need.upto == task.stop for need in task.needs)


def test_a_part_of_a_task_has_its_frames_and_a_name_of_its_own() -> None:
    files = tuple(InputFile(root="raw", path=name, format="hdf5", first=3, last=7) for name in ("a", "b"))
    found = cut(task_of(10, 18, inputs=files), 12, 16)
    assert (found.id, found.start, found.stop) == ("s/p/ab/000012-000016", 12, 16)
    assert [(part.path, part.first, part.last) for part in found.inputs] == [("a", 5, 7), ("b", 3, 5)]
    assert cut(task_of(0, 4, id=TaskId("mine")), 1, 2).id == "mine/000001-000002"


def test_the_task_of_a_whole_scan_is_not_cut_but_told() -> None:
    entry = Entry()
    entry.submit(task_of(0, 5))
    entry.submit(task_of(0, 12, shape=(3, 4), inputs=()))
    entry.submit(task_of(0, 20, inputs=task_of(0, 15).inputs))
    assert [(task.start, task.stop, bool(task.void)) for task in entry.taken()] == [(0, 5, False), (5, 12, True), (12, 20, True)]
    assert "frames_per_task as it was" in entry.taken()[-1].void


def test_other_settings_are_another_product() -> None:
    entry = Entry()
    entry.submit(task_of(0, 5), task_of(0, 5, settings=Digest("cd" * 32), id=TaskId("other")))
    assert len(entry.taken()) == 2
