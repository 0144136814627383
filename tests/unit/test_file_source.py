"""What the file source sees on a real disk: files that grow, break, come back, or point out of the raw folder."""

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from beamline_side.services.file_source import FileSource
from beamline_side.testing.in_process import InProcessCaller, InProcessSite
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment, SourceConfig
from beamtide.files.layout import laid_out
from beamtide.files.row import FileFact, counts_files, with_gaps
from beamtide.files.watch import FileWatch
from beamtide.files.ways import ScanPoints
from beamtide.formats.natural import natural
from beamtide.messages import Message
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import PutSettingsRequest, Scan
from beamtide.messages.tasks import SubmitRequest


def write(path: pathlib.Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number in range(1, 5):
            file[f"entry/data/encoder_{number}"] = np.zeros(frames)


def watch(raw: pathlib.Path, scan: str = "scan_1") -> FileWatch:
    return FileWatch(raw, scan, SourceConfig(match="{scan}/pilc/*.nxs", format="p06_pilc"))


def test_files_are_seen_in_the_order_of_their_numbers(tmp_path: pathlib.Path) -> None:
    for number in (10, 9, 1):
        write(tmp_path / f"scan_1/pilc/a_{number}.nxs", number)
    write(tmp_path / "scan_2/pilc/a_1.nxs", 3)
    assert [fact.frames for fact in watch(tmp_path).look(0.0)] == [1, 9, 10]


def test_a_plus_stitches_scans_unless_it_stands_in_the_name_of_a_scan(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "Fe/pilc/a_1.nxs", 3)
    write(tmp_path / "Cu/pilc/a_1.nxs", 4)
    assert [(fact.frames, fact.part) for fact in watch(tmp_path, "Fe+Cu").look(0.0)] == [(3, (0, 2)), (4, (1, 2))]
    write(tmp_path / "Fe+Cu/pilc/a_1.nxs", 5)
    assert [(fact.frames, fact.part) for fact in watch(tmp_path, "Fe+Cu").look(0.0)] == [(5, (0, 1))]


def test_a_truncated_file_has_a_sentence_and_is_read_again_when_it_is_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan_1/pilc/a_0.nxs"
    write(path, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seen = watch(tmp_path)
    (fact,) = seen.look(1.0)
    assert fact.frames == 0
    assert "a_0.nxs" in fact.trouble
    assert seen.changed_at == 1.0
    seen.look(2.0)
    assert seen.changed_at == 1.0, "nothing changed"
    path.write_bytes(whole)
    (fact,) = seen.look(3.0)
    assert (fact.frames, fact.trouble, seen.changed_at) == (5, "", 3.0)


def test_a_link_that_leaves_the_raw_folder_is_not_opened(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "elsewhere/a_0.nxs", 5)
    (tmp_path / "raw/scan_1/pilc").mkdir(parents=True)
    (tmp_path / "raw/scan_1/pilc/a_0.nxs").symlink_to(tmp_path / "elsewhere/a_0.nxs")
    (fact,) = watch(tmp_path / "raw").look(0.0)
    assert fact.frames == 0
    assert "leaves" in fact.trouble


def test_a_file_that_leads_outside_is_not_even_counted(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "elsewhere/a_0.nxs", 5)
    (tmp_path / "raw/scan_1/pilc").mkdir(parents=True)
    with h5py.File(tmp_path / "raw/scan_1/pilc/a_0.nxs", "w") as file:
        file["entry"] = h5py.ExternalLink(str(tmp_path / "elsewhere/a_0.nxs"), "/entry")
    (fact,) = watch(tmp_path / "raw").look(0.0)
    assert fact.frames == 0
    assert "outside" in fact.trouble


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a_08.h5", "a_10.h5"], ["a_08.h5", "a_09.h5", "a_10.h5"]),
        (["a_1.nxs", "b_3.nxs"], ["a_1.nxs", "b_3.nxs"]),
        (["dark.h5", "light.h5"], ["dark.h5", "light.h5"]),
        (["s/a_0_data.h5", "s/a_2_data.h5"], ["s/a_0_data.h5", "s/a_1_data.h5", "s/a_2_data.h5"]),
    ],
)
def test_missing_numbers_are_gaps(names: list[str], expected: list[str]) -> None:
    source = SourceConfig(match="the names say nothing about the first")
    assert [fact.path for fact in with_gaps([FileFact(name, 1) for name in names], source, 99, closed=True)] == expected


def test_file_10_comes_after_file_9() -> None:
    assert sorted(["a_10", "a_9"], key=natural) == ["a_9", "a_10"]


def test_a_file_that_tasks_were_made_of_keeps_its_place_whatever_becomes_of_it(tmp_path: pathlib.Path) -> None:
    """It may vanish or shrink: the files behind it do not move, and its tasks say what became of it."""
    for number in range(3):
        write(tmp_path / f"scan_1/pilc/a_{number}.nxs", 5)
    seen = watch(tmp_path)
    seen.look(0.0)
    seen.used |= {"scan_1/pilc/a_0.nxs", "scan_1/pilc/a_1.nxs"}
    (tmp_path / "scan_1/pilc/a_0.nxs").unlink()
    write(tmp_path / "scan_1/pilc/a_1.nxs", 3)
    (tmp_path / "scan_1/pilc/a_2.nxs").unlink()
    write(tmp_path / "scan_1/pilc/a_3.nxs", 4)
    facts = seen.look(1.0)
    assert [(fact.path[-7:], fact.frames) for fact in facts] == [("a_0.nxs", 5), ("a_1.nxs", 5), ("a_3.nxs", 4)]
    assert seen.changed_at == 1.0
    write(tmp_path / "scan_1/pilc/a_1.nxs", 6)
    assert [fact.frames for fact in seen.look(2.0)] == [5, 6, 4]


def test_a_stack_of_lines_shows_its_axes(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b"] = np.zeros((3, 4, 8)), np.zeros((3, 4))
        file["frames"] = np.zeros((3, 2))
    for options, shape in (({"a": "/a", "b": "/b"}, (3, 4)), ({"a": "/a", "f": "/frames"}, (3,))):
        source = SourceConfig(match="x.h5", format="hdf5", options=options)
        (fact,) = FileWatch(tmp_path, "x", source).look(0.0)
        assert fact.shape == shape


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (["a_1.h5", "a_2.h5", "a_5.h5"], True),
        (["line_1/x_0.h5", "line_2/x_0.h5"], True),
        (["120301.h5", "120305.h5"], True),
        (["a_1.h5", "b_2.h5"], False),
        (["d01_t01.h5", "d01_t04.h5", "d02_t01.h5"], False),
        (["x.h5", "y.h5"], False),
    ],
)
def test_names_that_count_files(names: list[str], counted: bool) -> None:
    assert counts_files([FileFact(name, 1) for name in names]) is counted


def test_times_of_day_are_no_gaps() -> None:
    source = SourceConfig(match="*.h5")
    files = [FileFact(f"{name}.h5", 5) for name in (120301, 120305, 120309, 120400)]
    assert len(with_gaps(files, source, 20, closed=True)) == 4


@given(
    st.integers(2, 9), st.integers(2, 9), st.sampled_from([0, 1, 1000]), st.sets(st.integers(0, 8), max_size=4), st.integers(0, 3)
)
def test_files_that_are_named_by_their_first_frame_are_in_their_places(
    full: int, count: int, begin: int, lost: set[int], short: int
) -> None:
    """scan_000000, scan_000100, scan_000200: a number that is not there is the hole of its frames; the last one may be short.

    Two whole files show it.
    """
    points = full * count - min(short, full - 1)
    names = {begin + number * full: min(full, points - number * full) for number in range(count) if number not in lost}
    files = [FileFact(f"scan_{number:06d}.h5", frames) for number, frames in names.items()]
    assume(sum(file.frames == full for file in files) >= 2)
    source = SourceConfig(match="scan_*.h5", first=begin)
    found = laid_out(files, ScanPoints.of(points, (points,)), source, closed=True)
    truth = {f"scan_{number:06d}.h5": number - begin for number in names}
    readable = [one for one in found.pieces if one.path]
    assert all(one.start - one.first == truth[one.path] for one in readable), "a frame stands at a wrong index"
    if len(files) > 3 and not lost & {0, count - 1} and not found.untold:
        assert {one.path for one in readable} == truth.keys()


def test_names_that_may_count_files_or_frames_are_refused_when_both_fit() -> None:
    files = [FileFact(f"s_{number}.h5", 2) for number in (0, 2)]
    scan, source = ScanPoints.of(8, (8,)), SourceConfig(match="s_*.h5")
    assert not [one for one in laid_out(files, scan, source, closed=False).pieces if one.start >= 2]
    (piece,) = laid_out(files, scan, source, closed=True).pieces
    assert "may count files, of which some are missing, or the frames in them (2 each)" in piece.trouble


def test_settings_of_a_pipeline_that_others_submit_to_are_known_before_anything_is_submitted(tmp_path: pathlib.Path) -> None:
    sources = {"a": "{match: '{scan}/pilc/*.nxs', format: p06_pilc}", "b": "{kind: submitted}"}
    for number, (name, source) in enumerate(sources.items(), 1):
        axes = f"settings: {{axes: {{x: {{field: encoder_{number}}}}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(f"pipeline: {name}\nmodality: encoders\nsource: {source}\n{axes}")
    site_file = tmp_path / "site.yaml"
    site_file.write_text(
        "site: s\nroots: {raw: raw, processed: p}\nstate: s\npipelines: [a.yaml, b.yaml]\n"
        "scaling: {caps: {jobs: 0, node_hours_per_day: 0}}\n"
    )
    write(tmp_path / "raw/scan_1/pilc/a_1.nxs", 3)
    deployment = site.load(site_file)
    caller = Noting(deployment, InProcessSite(deployment))
    client = Client(deployment, caller=caller)
    client.scan_started(Scan(id=ScanId("scan_1"), shape=(2, 3)))
    source = FileSource(deployment, client)
    source.step()
    kinds = [type(message).__name__ for message in caller.asked if type(message) in (PutSettingsRequest, SubmitRequest)]
    assert kinds == ["PutSettingsRequest", "PutSettingsRequest", "SubmitRequest"]
    assert {one.pipeline for one in client.status("scan_1").tallies} == {"a"}
    write(tmp_path / "raw/scan_1/pilc/a_2.nxs", 3)
    client.scan_ended("scan_1")
    source.step()
    assert (source.watched, source.why()) == ({}, "")


class Noting(InProcessCaller):
    """Remembers what was asked."""

    def __init__(self, deployment: Deployment, cores: InProcessSite) -> None:
        super().__init__(deployment, cores)
        self.asked: list[Message] = []

    def converse(self, address: str, message: Message, *more: Any, **options: Any) -> Any:
        self.asked.append(message)
        return super().converse(address, message, *more, **options)


def test_one_whole_file_shows_it_where_the_last_would_lie_behind_the_scan() -> None:
    files = [FileFact("scan_000002.h5", 2), FileFact("scan_000004.h5", 1)]
    found = laid_out(files, ScanPoints.of(5, (5,)), SourceConfig(match="scan_*.h5", first=0), closed=True)
    assert [(one.start, one.stop) for one in found.pieces if one.path] == [(2, 4), (4, 5)]
