"""A scan that is processed a second time: with a corrected source, with files that came late, and from the start."""

import pathlib

import h5py
import numpy as np
import pytest

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.one_scan import ScanOutcome, run_scan
from beamline_side.hosts.reprocess import reprocess
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.errors import BadInput
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import reading
from tests.system.deployments import until

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(120)]
LINES, POINTS = 3, 5
SCAN = Scan(id=ScanId("s"), shape=(LINES, POINTS))
SITE = """site: t
roots: {raw: raw, processed: processed}
state: state
pipelines: [counters.yaml]
scaling: {caps: {jobs: 1, node_hours_per_day: 24}, tick: 0.2, idle_exit: 3}
"""
COUNTERS = """pipeline: counters
modality: counters
source: {match: "{scan}/*.h5", options: {i0: %s}, settle: 0.2}
settings: {counters: {i0: {field: i0, units: A, dark: 0}}}
write: [hdf5, jpeg]
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A site, and a scan of a file for each line: in "right" stands the index, in "wrong" a hundred more."""
    (tmp_path / "raw" / "s").mkdir(parents=True)
    (tmp_path / "site.yaml").write_text(SITE)
    for line in range(LINES):
        write(tmp_path, line)
    return tmp_path


def write(folder: pathlib.Path, line: int) -> None:
    with h5py.File(folder / "raw" / "s" / f"s_{line:03d}.h5", "w") as file:
        file["right"] = np.arange(POINTS) + POINTS * line
        file["wrong"] = np.arange(POINTS) + POINTS * line + 100


def run(folder: pathlib.Path, dataset: str, *, fresh: bool = False) -> ScanOutcome:
    (folder / "counters.yaml").write_text(COUNTERS % dataset)
    return run_scan(site.load(folder / "site.yaml"), SCAN, lambda _: None, fresh=fresh)


def kept(folder: pathlib.Path) -> dict[str, list[float]]:
    """Return what `beamtide.open` shows: the name of each product, and its numbers."""
    found = reading.open("s", processed=folder / "processed")
    return {name.split("/")[0]: found.rows(name).values.tolist() for name in found if name.endswith("/i0")}


def jobs_of(folder: pathlib.Path, product: str = "counters") -> list[str]:
    with h5py.File(folder / "processed" / "beamtide" / "s" / f"{product}.h5") as file:
        return list(file["entry/process/tasks/worker"].asstr()[()])


def pictures(folder: pathlib.Path) -> set[str]:
    found = (path.name for path in (folder / "processed" / "beamtide" / "s" / "preview").iterdir())
    return {name for name in found if "flags" not in name}


RIGHT = [float(index) for index in range(LINES * POINTS)]
WRONG = [100.0 + index for index in range(LINES * POINTS)]


def test_a_corrected_source_computes_anew_and_the_old_result_stays_beside_it(folder: pathlib.Path) -> None:
    run(folder, "wrong")
    assert kept(folder) == {"counters": WRONG}
    outcome = run(folder, "right")
    (odd,) = kept(folder).keys() - {"counters"}
    assert kept(folder) == {"counters": RIGHT, odd: WRONG}
    assert outcome.last.pipelines["counters"].total == LINES, "what was superseded is counted"
    assert {path.name for path in outcome.files if path.suffix == ".h5"} == {"counters.h5"}
    assert pictures(folder) == {"counters_i0.jpg", f"{odd}_i0.jpg"}
    before = jobs_of(folder, odd)
    run(folder, "wrong")
    (other,) = kept(folder).keys() - {"counters"}
    assert kept(folder) == {"counters": WRONG, other: RIGHT}
    assert jobs_of(folder) == before, "it was computed a second time"
    (folder / "counters.yaml").write_text((COUNTERS % "wrong").replace("settle: 0.2", "settle: 0.1, frames_per_task: 4"))
    run_scan(site.load(folder / "site.yaml"), SCAN, lambda _: None)
    assert (len(kept(folder)), jobs_of(folder)) == (2, before), "how a scan is cut changes no number"
    assert reading.verify(folder / "processed" / "beamtide" / "s" / "counters.h5") == []
    with h5py.File(folder / "processed" / "beamtide" / "s" / f"{other}.h5") as file:
        assert '"i0": "right"' in file["entry/process/settings/data"].asstr()[()]


def test_holes_are_filled_when_their_files_have_come_and_nothing_else_is_computed(folder: pathlib.Path) -> None:
    late = folder / "raw" / "s" / "s_001.h5"
    late.rename(folder / "aside.h5")
    outcome = run(folder, "right")
    values = kept(folder)["counters"]
    assert np.isnan(values[POINTS : 2 * POINTS]).all()
    assert outcome.holes == ("counters: 5 of 15 indexes have no result: the file s/s_001.h5 never came",)
    workers = jobs_of(folder)
    again = run(folder, "right")
    assert again.holes == outcome.holes
    assert jobs_of(folder) == workers
    (folder / "aside.h5").rename(late)
    filled = run(folder, "right")
    assert kept(folder) == {"counters": RIGHT}
    assert filled.holes == ()
    assert [jobs_of(folder)[line] for line in (0, 2)] == [workers[line] for line in (0, 2)]


def test_starting_over_computes_all_of_it_and_keeps_what_was(folder: pathlib.Path) -> None:
    run(folder, "right")
    workers = jobs_of(folder)
    for line in range(LINES):  # somebody repaired the files
        (folder / "raw" / "s" / f"s_{line:03d}.h5").unlink()
        with h5py.File(folder / "raw" / "s" / f"s_{line:03d}.h5", "w") as file:
            file["right"] = np.arange(POINTS) + POINTS * line + 1000
    run(folder, "right")
    assert kept(folder) == {"counters": RIGHT}, "it is done, and files that are done are not looked at"
    run(folder, "right", fresh=True)
    (odd,) = kept(folder).keys() - {"counters"}
    assert kept(folder) == {"counters": [1000 + value for value in RIGHT], odd: RIGHT}
    assert jobs_of(folder, odd) == workers
    run(folder, "right")
    assert len(kept(folder)) == 2, "it starts over once"


def test_what_is_reprocessed_while_it_is_measured_moves_no_frame(folder: pathlib.Path) -> None:
    """Two files are there, and tasks were made of them; a third one comes between them."""
    raw = folder / "raw" / "s"
    for line, name in enumerate("abc"):
        (raw / f"s_{line:03d}.h5").rename(folder / f"{name}.h5")
    (folder / "counters.yaml").write_text((COUNTERS % "right").replace("settle:", "frames_per_file: any, settle:"))
    deployment = site.load(folder / "site.yaml")
    with Host(deployment) as host, Client(deployment) as client:
        for name in "ac":
            (folder / f"{name}.h5").rename(raw / f"{name}.h5")
        client.scan_started(SCAN)
        until(host, lambda: any(state.complete == 2 * POINTS for state in client.products("s")), 60)
        (folder / "b.h5").rename(raw / "b.h5")
        made = reprocess(client, "s")
    assert made.tasks == {"counters": 0}
    assert "c.h5 was taken for indexes from 5 on, and by what its neighbours hold now it would begin at 10" in made.remarks[0]


def test_what_cannot_be_processed_anew_is_a_sentence(folder: pathlib.Path) -> None:
    (folder / "counters.yaml").write_text(COUNTERS % "right")
    deployment = site.load(folder / "site.yaml")
    with Host(deployment), Client(deployment) as client:
        with pytest.raises(BadInput, match="there is no scan 's'"):
            reprocess(client, "s")
        client.scan_started(SCAN)
        with pytest.raises(BadInput, match="there is no pipeline 'xrf'; this site has: counters"):
            reprocess(client, "s", ["xrf"])


def test_a_file_that_came_late_moves_no_frame_that_has_a_result(folder: pathlib.Path) -> None:
    """Files of any length: by those that are there, s_002 begins where s_001 should have."""
    late = folder / "raw" / "s" / "s_001.h5"
    late.rename(folder / "aside.h5")
    (folder / "counters.yaml").write_text(
        (COUNTERS % "right").replace("settle: 0.2", "settle: 0.2, frames_per_file: any, first: 0")
    )
    (folder / "raw" / "s" / "s_002.h5").rename(folder / "raw" / "s" / "t_002.h5")  # no number is missing by name
    (folder / "raw" / "s" / "s_000.h5").rename(folder / "raw" / "s" / "a.h5")
    (folder / "raw" / "s" / "t_002.h5").rename(folder / "raw" / "s" / "c.h5")
    deployment = site.load(folder / "site.yaml")
    run_scan(deployment, SCAN, lambda _: None)
    before = kept(folder)["counters"]
    assert before[:10] == RIGHT[:5] + RIGHT[10:]
    (folder / "aside.h5").rename(folder / "raw" / "s" / "b.h5")
    outcome = run_scan(deployment, SCAN, lambda _: None)
    np.testing.assert_array_equal(kept(folder)["counters"], before)
    assert "c.h5 was taken for indexes from 5 on, and by what its neighbours hold now it would begin at 10" in outcome.holes[0]
