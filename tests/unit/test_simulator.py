"""The simulated beamline: the layout is P06's, and PyMca finds what was put in."""

import pathlib
from collections.abc import Iterator
from importlib import resources

import h5py
import numpy as np
import pytest

from beamline_side.simulation import beamline
from beamtide import registry
from beamtide.errors import BadInput
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan

ROWS, COLUMNS = 10, 12
pytest.importorskip("PyMca5")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("raw")
    beamline.simulate(folder, Scan(id=ScanId("scan_00001"), shape=(ROWS, COLUMNS)), seconds_per_line=0.0)
    return folder


def corrected(raw: pathlib.Path) -> np.ndarray:
    """Spectra of all points, corrected for dead time and summed over detector elements."""
    known = registry.find("formats", "p06_xspress3")
    lines = [known.read(path, 0, COLUMNS, {}) for path in sorted((raw / "scan_00001" / beamline.DETECTOR).glob("*.nxs"))]
    return np.concatenate([(line["spectra"] * line["dead_time_factor"][..., None]).sum(axis=1) for line in lines])


def test_pymca_recovers_every_element(raw: pathlib.Path) -> None:
    from PyMca5.PyMcaIO.ConfigDict import ConfigDict
    from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

    config = ConfigDict()
    config.read(str(resources.files("beamline_side.simulation") / "demo" / "sample.cfg"))
    config["fit"]["linearfitflag"] = 1
    fit = FastXRFLinearFit()
    fit.setFitConfiguration(config)
    found = fit.fitMultipleSpectra(y=corrected(raw), weight=0, refit=True)
    names = [name.replace(" ", "_") for name in found.labels("parameters")]
    recovered = dict(zip(names, found["parameters"], strict=True))
    rows = beamline.compare(recovered, beamline.truth(raw / "scan_00001"))
    assert [name for name, _, _ in rows] == ["Ca_K", "Cu_K", "Fe_K", "Ti_K", "Zn_K"]
    for name, ratio, spread in rows:
        assert ratio == pytest.approx(1.0, abs=0.02), name
        assert spread < 0.01, name


def test_files_are_one_per_line_and_count_on(raw: pathlib.Path) -> None:
    for device, form in ((beamline.DETECTOR, "p06_xspress3"), (beamline.ENCODERS, "p06_pilc")):
        paths = sorted((raw / "scan_00001" / device).glob("scan_00001_*.nxs"))
        assert [registry.find("formats", form).probe(path, {}).frames for path in paths] == [COLUMNS] * ROWS
        assert registry.find("formats", form).shape_of(paths[0]) == (ROWS, COLUMNS)
    with h5py.File(raw / "scan_00001" / beamline.DETECTOR / "scan_00001_00001.nxs") as file:
        numbers = file["entry/instrument/detector/sequence_number"][()]
    np.testing.assert_array_equal(numbers, np.arange(COLUMNS + 1, 2 * COLUMNS + 1))


def test_every_group_of_the_master_has_a_class_and_links_are_relative(raw: pathlib.Path) -> None:
    links = 0
    with h5py.File(raw / "scan_00001.nxs") as file:
        for group in own_groups(file):
            assert "NX_class" in group.attrs, group.name
            for name in group:
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    links += 1
                    assert not pathlib.PurePath(link.filename).is_absolute()
                    assert group.get(name) is not None
    assert links == 2 * ROWS


def test_a_seed_is_a_scan(tmp_path: pathlib.Path, raw: pathlib.Path) -> None:
    scan = Scan(id=ScanId("scan_00001"), shape=(ROWS, COLUMNS))
    beamline.simulate(tmp_path, scan, seconds_per_line=0.0)
    np.testing.assert_array_equal(corrected(tmp_path), corrected(raw))


def test_a_line_scan_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="two dimensions"):
        beamline.simulate(tmp_path, Scan(id=ScanId("s"), shape=(5,)))


def own_groups(group: h5py.Group) -> Iterator[h5py.Group]:
    """The group and those below it that lie in the same file."""
    yield group
    for name in group:
        if group.get(name, getclass=True, getlink=True) is h5py.HardLink and isinstance(group[name], h5py.Group):
            yield from own_groups(group[name])
