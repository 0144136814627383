"""`beamtide settings check`: what a file contains, what of it is ignored, what is wrong, and a picture of it at work."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from beamtide.cli import main

pytestmark = pytest.mark.long


@pytest.fixture
def steel(test_data: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "steel.cfg"
    path.write_text((test_data / "xrf" / "Steel.cfg").read_text().replace("stripalgorithm = 0", "stripalgorithm = 1"))
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main.run([str(word) for word in ("settings", "check", *words)])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def colours(path: pathlib.Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {tuple(int(value) for value in row) for row in np.unique(pixels, axis=0)}


def test_a_good_configuration_and_the_picture_of_its_fit(
    steel: pathlib.Path, test_data: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "fit.png"
    code, out, _ = run(capsys, "xrf", steel, "--sample", test_data / "xrf" / "Steel.spe", "--picture", picture, "--json")
    found = json.loads(out[out.index("{") :])
    assert code == 0
    assert found["wrong"] == []
    assert "Fe Ka, Kb" in found["facts"]["elements"]
    assert found["facts"]["beam"] == "16.0 keV"
    assert "SNIP of width 30" in found["facts"]["background"]
    assert any("sumflag" in text for text in found["ignored"])
    assert {(120, 120, 120), (200, 40, 40), (40, 90, 200)} <= colours(picture), "measured, fit and background are drawn"


def test_all_that_is_wrong_with_a_configuration(
    test_data: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.cfg"
    text = (test_data / "xrf" / "Steel.cfg").read_text().replace("strategyflag = 0", "strategyflag = 1")
    bad.write_text(text.replace("energy = 16.0,", "energy = 16000.0,"))
    code, out, _ = run(capsys, "xrf", bad)
    assert code == 2
    assert "looks like eV" in out
    assert "no strategies" in out
    assert "not 1 (SNIP)" in out
    bad.write_text(text[: text.index("[peaks]")] + "[peaks]\n\n" + text[text.index("[fit]") :])
    assert "names no element" in run(capsys, "xrf", bad)[1]
    code, _, err = run(capsys, "xrf", tmp_path / "nothing.cfg")
    assert code == 2
    assert "is not a file" in err


def test_a_geometry_and_the_picture_of_a_frame(
    test_data: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poni, frame = test_data / "xrd" / "CeO2_Pilatus1M.poni", test_data / "xrd" / "CeO2_Pilatus1M.tif"
    code, out, _ = run(capsys, "xrd", poni)
    assert code == 2
    assert "does not say where pixel 0 lies" in out
    picture = tmp_path / "frame.jpg"
    code, out, _ = run(capsys, "xrd", poni, "--sample", frame, "--picture", picture, "--set", "orientation=2")
    assert code == 0, out
    assert "1043 rows x 981 columns" in out
    assert "30.49" in out
    assert len(colours(picture)) > 50
    without = tmp_path / "without.poni"
    without.write_text(poni.read_text().replace("PixelSize1: 0.000172\nPixelSize2: 0.000172\n", ""))
    code, out, _ = run(capsys, "xrd", without)
    assert code == 2
    assert "no detector with a pixel size" in out


def test_a_setting_that_is_none(steel: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "xrf", steel, "--set", "weight")
    assert code == 2
    assert "write it as NAME=VALUE" in err
    code, _, err = run(capsys, "xrf", steel, "--set", "weight=7")
    assert code == 2
    assert "weight: Input should be 0 or 1" in err
    assert run(capsys, "dpc", steel)[0] == 2
