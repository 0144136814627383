"""A source that starts again puts every file where it was put first, whatever became of the files meanwhile."""

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.distributor.file_origins import PAGE, FileOrigins
from beamline_side.cores.task_plan import origins
from beamline_side.services.file_source import FileSource
from beamline_side.testing.in_process import InProcessCaller, InProcessSite
from beamtide.client.client import Client
from beamtide.config.models import Deployment
from beamtide.machine import Forget, Keep
from beamtide.messages import Message
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.tasks import FileOrigin, FileStamp, ForgetOriginsRequest, OriginsRequest, SubmitRequest, Task
from tests.builders.sites import write_site
from tests.builders.tasks import make_input, make_task
from tests.stories.shelf import Shelf

WIDTH = 4


def write(path: pathlib.Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        for number in range(1, 5):
            file[f"entry/data/encoder_{number}"] = np.zeros(frames)


class Noting(InProcessCaller):
    """Remembers the tasks that were submitted."""

    def __init__(self, deployment: Deployment, cores: InProcessSite) -> None:
        super().__init__(deployment, cores)
        self.tasks: list[Task] = []

    def converse(self, address: str, message: Message, *more: Any, **options: Any) -> Any:
        if isinstance(message, SubmitRequest):
            self.tasks += message.tasks
        return super().converse(address, message, *more, **options)


def site_of(folder: pathlib.Path, per_task: int | str, way: str) -> Deployment:
    source = {
        "match": "{scan}/a_*.nxs",
        "format": "p06_pilc",
        "frames_per_task": per_task,
        "frames_per_file": way,
        "settle": 0,
        "first": 0,
    }
    axes = {"axes": {"x": {"field": "encoder_1"}}}
    return write_site(folder, {"pilc": {"modality": "encoders", "source": source, "settings": axes}})


MISHAPS = st.sampled_from(["", "", "shrink", "grow", "vanish", "rename", "damage"])


@given(
    st.lists(st.integers(1, WIDTH), min_size=2, max_size=6),
    st.lists(MISHAPS, min_size=6, max_size=6),
    st.integers(1, 6),
    st.sampled_from([1, 3, "line"]),
    st.sampled_from(["auto", "line"]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_no_frame_moves_when_the_source_starts_again(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    mishaps: list[str],
    before: int,
    per_task: int | str,
    way: str,
    recreated: bool,
) -> None:
    """Files of a line each, which may lack frames at their ends; the first life of the source sees `before` of them."""
    folder = tmp_path_factory.mktemp("site")
    deployment = site_of(folder, per_task, way)
    raw, caller = folder / "raw" / "scan_1", Noting(deployment, InProcessSite(deployment))
    client = Client(deployment, caller=caller)
    for number, frames in enumerate(lengths[:before]):
        write(raw / f"a_{number}.nxs", frames)
    client.scan_started(Scan(id=ScanId("scan_1"), shape=(len(lengths), WIDTH)))
    FileSource(deployment, client).step()
    first = {path: origin for task in caller.tasks for path, origin in origins(task)}
    for number, what in enumerate(mishaps[: len(lengths[:before])]):
        happen(what, raw / f"a_{number}.nxs", lengths[number])
    for number, frames in enumerate(lengths[before:], before):
        write(raw / f"a_{number}.nxs", frames)
    source = FileSource(deployment, client)
    source.step()
    if recreated:
        source = FileSource(deployment, client)
    client.scan_ended("scan_1")
    source.step()
    assert not source.watched, source.why()
    assert all(first.get(path, origin) == origin for task in caller.tasks for path, origin in origins(task)), "a file moved"
    check_frames(caller.tasks)
    assert sum(one.submitted for one in client.status("scan_1").tallies) > 0
    digest = client.put_settings(deployment.pipelines["pilc"])
    assert not list(client.origins("scan_1", "pilc", digest)), "they are forgotten when the scan is over"


def happen(what: str, path: pathlib.Path, frames: int) -> None:
    """Do something to a file that tasks were made of."""
    match what:
        case "shrink" | "grow":
            write(path, frames + (1 if what == "grow" else -1))
        case "vanish":
            path.unlink()
        case "rename":
            path.rename(path.with_name(f"a_{int(path.stem[2:]) + 20}.nxs"))
        case "damage":
            path.write_bytes(b"no HDF5")


def check_frames(tasks: list[Task]) -> None:
    """Check that an index is one frame, and that no file is used under two names."""
    where: dict[int, tuple[str, int]] = {}
    for task in tasks:
        at = task.start
        for part in task.inputs:
            for frame in range(part.first, part.last):
                assert where.setdefault(at, (part.path, frame)) == (part.path, frame), "an index is two frames"
                at += 1
    used = {path for path, _ in where.values()}
    assert not {path for path in used if first_name(path) in used}, "a file that was renamed is used twice"


def first_name(path: str) -> str:
    """Return the name that a renamed file had."""
    before, _, number = path.removesuffix(".nxs").rpartition("_")
    return f"{before}_{int(number) - 20}.nxs"


def test_a_file_that_was_renamed_is_said(tmp_path: pathlib.Path) -> None:
    deployment = site_of(tmp_path, "line", "line")
    raw, client = tmp_path / "raw/scan_1", Client(deployment, caller=InProcessCaller(deployment, InProcessSite(deployment)))
    write(raw / "a_0.nxs", WIDTH)
    client.scan_started(Scan(id=ScanId("scan_1"), shape=(3, WIDTH)))
    FileSource(deployment, client).step()
    (raw / "a_0.nxs").rename(raw / "a_1.nxs")
    source = FileSource(deployment, client)
    source.step()
    assert "scan_1/a_0.nxs, of which tasks were made, is called scan_1/a_1.nxs now: give it its name back" in source.why()
    assert [one.submitted for one in client.status("scan_1").tallies] == [1]


@given(st.lists(st.integers(0, 3 * PAGE), min_size=1, max_size=4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_origins_stand_in_pages_and_survive_a_restart(portions: list[int], restarted: bool) -> None:
    """Tasks of one index each, two of them of each file; submitted in portions."""
    shelf, submitted, where = Shelf(), 0, {"scan": "s", "pipeline": "p", "settings": "d"}
    core = FileOrigins(shelf)
    for size in portions:
        stamp = FileStamp(2, 1, 1, 1)
        numbers = range(submitted, submitted + size)
        files = [make_input(f"f_{number // 2}", number % 2, number % 2 + 1, was=stamp) for number in numbers]
        for effect in core.add([make_task(number, inputs=(file,)) for number, file in zip(numbers, files, strict=True)]):
            assert isinstance(effect, Keep)
            shelf.keep(effect.table, effect.key, effect.body)
        submitted += size
        core = FileOrigins(shelf) if restarted else core
    found: dict[str, list[FileOrigin]] = {}
    page, more = 0, True
    while more:
        answer = core.answer(OriginsRequest(**where, page=page))
        for one in answer.files:
            found.setdefault(one.path, []).append(one)
        page, more = page + 1, answer.more
    assert found.keys() == {f"f_{index // 2}" for index in range(submitted)}
    for path, entries in found.items():
        assert {one.origin for one in entries} == {2 * int(path[2:])}
        assert max(one.last for one in entries) == min(2, submitted - 2 * int(path[2:]))
    for effect in core.forget(ForgetOriginsRequest(**where)):
        assert isinstance(effect, Forget)
        del shelf.now[effect.table, effect.key]
    assert not list(shelf.rows("origin"))
    assert not FileOrigins(shelf).answer(OriginsRequest(**where)).files


def test_files_of_tasks_that_somebody_wrote_are_not_kept() -> None:
    assert not FileOrigins(Shelf()).add([make_task(0, inputs=(make_input("f"),))])
