"""Geometry as files state it: sectors across the end of the angles, the block of a poni file that counts, and files it names."""

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from beamtide import registry
from beamtide.config import settings as documents
from beamtide.config.models import PipelineConfig
from beamtide.errors import BadInput
from cluster_side.modalities.base import run
from cluster_side.modalities.xrd import geometry, poni_text
from cluster_side.worker.task import ready_kernel

XRD = registry.find("modalities", "xrd")
SHAPE = (60, 50)
PLAIN: dict[str, Any] = {"points": 10, "split": "no", "solid_angle": False}
NUMBERS = "Distance: 0.02\nPoni1: 0.0024\nPoni2: 0.0022\nRot1: -0.02\nRot2: -0.05\nRot3: 0.3\nWavelength: 1e-10\n"
CONFIG = f'{{"pixel1": 8e-05, "pixel2": 9e-05, "max_shape": {list(SHAPE)}, "orientation": 3}}'
BLOCK = f"# Nota: C-Order\nponi_version: 2.1\nDetector: Detector\nDetector_config: {CONFIG}\n{NUMBERS}# Calibrant: LaB6\n"
NEXUS = 'poni_version: 2.1\nDetector: NexusDetector\nDetector_config: {"filename": "det.h5", "orientation": 3}\n' + NUMBERS


def saved(folder: pathlib.Path, text: str) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    (folder / "cal.poni").write_text(text)
    return folder / "cal.poni"


@pytest.mark.long
@given(st.integers(-400, 400), st.integers(20, 400), st.sampled_from(["no", "bbox"]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sector_is_taken_whole(tmp_path: pathlib.Path, low: int, width: int, split: str) -> None:
    """The pixels whose angle lies in it, counted around the circle by a naive formula; both engines, also polarized."""
    poni, wanted = saved(tmp_path, BLOCK), [low + 0.5, low + 0.5 + width]
    ai = AzimuthalIntegrator.sload(str(poni))
    angle = np.rad2deg(ai.center_array(SHAPE, unit="chi_rad", scale=False))
    weight = ai.polarization(SHAPE, 0.9)[(angle - wanted[0]) % 360 <= width].sum()
    frames = {"frames": np.random.default_rng(width).poisson(9, (1, *SHAPE)).astype("u2")}
    chosen = PLAIN | {"azimuth_range": wanted, "split": split, "polarization": 0.9, "cake": 6}
    ours, theirs = (run(XRD, frames, chosen | {"engine": engine}, {"poni": poni}) for engine in ("fast", "pyfai"))
    if split == "no":
        assert ours["azint1d/norm"].sum() == pytest.approx(weight, rel=1e-5)
    for name in ("azint1d/I", "azint2d/I", "azint2d/azimuthal_axis"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-6, atol=1e-6)
    if width < 360:
        assert wanted[0] <= ours["azint2d/azimuthal_axis"].min()
        assert ours["azint2d/azimuthal_axis"].max() <= wanted[1]


OLD = NUMBERS.replace("0.02", "0.05") + "PixelSize1: 8e-05\nPixelSize2: 9e-05\n"


@pytest.mark.parametrize(
    ("text", "stated", "distance"),
    [
        (BLOCK, True, 0.02),
        (BLOCK + BLOCK.replace("0.02", "0.03"), True, 0.03),
        (BLOCK + BLOCK.replace(', "orientation": 3', "").replace("0.02", "0.03"), False, 0.03),
        (BLOCK.replace(', "orientation": 3', "") + BLOCK.replace("0.02", "0.03"), True, 0.03),
        (BLOCK + "# Calibration done\n" + OLD, False, 0.05),
        (OLD + BLOCK, True, 0.02),
    ],
)
def test_the_last_block_counts_alone(text: str, stated: bool, distance: float, tmp_path: pathlib.Path) -> None:
    poni = saved(tmp_path, text)
    assert geometry.states_orientation(poni) == stated
    assert geometry.poni(poni, {}).dist == distance
    if not stated:
        with pytest.raises(BadInput, match="does not say where pixel 0 lies"):
            XRD.check(PLAIN | {"shape": SHAPE}, {"poni": poni})


def test_a_last_block_that_is_not_whole_is_refused(tmp_path: pathlib.Path) -> None:
    poni = saved(tmp_path, BLOCK + "# again\nDistance: 0.03\nPoni1: 0\nPoni2: 0\nDetector: Detector\n")
    with pytest.raises(BadInput, match="there is no Wavelength in the last of its 2 blocks, which is the one that counts"):
        XRD.check(PLAIN, {"poni": poni})


def detector(folder: pathlib.Path, pixel: float) -> None:
    (folder / "det.h5").unlink(missing_ok=True)
    Detector(pixel, pixel, max_shape=SHAPE, orientation=3).save(str(folder / "det.h5"))


def pipeline() -> PipelineConfig:
    given = {
        "pipeline": "xrd",
        "modality": "xrd",
        "source": {"match": "x"},
        "settings": PLAIN,
        "calibration": {"poni": "cal.poni"},
    }
    return PipelineConfig.model_validate(given)


def test_a_detector_file_travels_with_its_poni_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is part of the digest, and reaches the worker, wherever that stands; pyFAI alone would look in the working folder."""
    folder, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    saved(folder, NEXUS)
    frames, ends, digests = np.full((1, *SHAPE), 10, "u2"), [], []
    for pixel in (8e-5, 16e-5):
        detector(folder, pixel)
        prepared = documents.document_for(pipeline(), folder)
        assert set(prepared.document.calibration) == {"poni", "poni+det.h5"}
        monkeypatch.chdir(elsewhere)
        ready = ready_kernel.prepare(prepared, tmp_path / "cache")
        found = ready.kernel({"frames": frames})
        assert (found["azint1d/I"] == 10).all()
        ends.append(found["azint1d/radial_axis"][-1])
        digests.append(prepared.digest)
    assert digests[0] != digests[1]
    assert ends[1] > 1.5 * ends[0]
    monkeypatch.chdir(folder)
    ai = AzimuthalIntegrator.sload("cal.poni")
    assert ends[1] == pytest.approx(ai.integrate1d(frames[0], 10, method=("no", "csr", "cython")).radial[-1])


def test_a_detector_file_brings_its_dark_and_flat(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyFAI applies what a detector file holds, so we do."""
    made = Detector(8e-5, 8e-5, max_shape=SHAPE, orientation=3)
    made.darkcurrent, made.flatfield = np.full(SHAPE, 2.0, "f4"), np.full(SHAPE, 2.0, "f4")
    poni = saved(tmp_path, NEXUS)
    made.save(str(tmp_path / "det.h5"))
    for engine in ("fast", "pyfai"):
        calibration = {"poni": poni, "poni+det.h5": tmp_path / "det.h5"}
        found = run(XRD, {"frames": np.full((1, *SHAPE), 10, "u2")}, PLAIN | {"engine": engine}, calibration)
        np.testing.assert_allclose(found["azint1d/I"], 4.0)


def test_a_file_that_is_named_must_be_there_and_inside(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    saved(folder, NEXUS)
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput, match=r"calibration\.poni: cal\.poni names the file det\.h5, which is neither beside it nor in"):
        documents.document_for(pipeline(), folder)
    detector(tmp_path, 8e-5)
    saved(folder, NEXUS.replace("det.h5", "../det.h5"))
    with pytest.raises(BadInput, match=r"names the file \.\./det\.h5: .*leaves .*; put the file there"):
        documents.document_for(pipeline(), folder)
    detector(folder, 8e-5)
    saved(folder, NEXUS)
    with pytest.raises(BadInput, match=r"names the file det\.h5, which did not come with it"):
        XRD.load(PLAIN, {"poni": folder / "cal.poni"})
    with h5py.File(folder / "det.h5", "a") as file:
        file["more"] = h5py.ExternalLink(str(tmp_path / "det.h5"), "/")
    with pytest.raises(BadInput, match=r"det\.h5: the external link /more leads to .*copy it inside"):
        XRD.load(PLAIN, {"poni": folder / "cal.poni", "poni+det.h5": folder / "det.h5"})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (BLOCK, ()),
        (NEXUS, ("det.h5",)),
        (OLD + "SplineFile: None\n", ()),
        (OLD + "SplineFile: my.spline\n", ("my.spline",)),
        (OLD + "Detector: folder/det.h5\n", ("folder/det.h5",)),
        ('Detector: FReLoN\nDetector_config: {"splineFile": "f.spline"}\n' + NUMBERS, ("f.spline",)),
    ],
)
def test_which_files_a_poni_file_names(text: str, names: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    assert poni_text.files("poni", saved(tmp_path, text)) == names


def test_the_digest_of_a_poni_file_alone_is_the_one_it_had(tmp_path: pathlib.Path) -> None:
    saved(tmp_path, BLOCK)
    prepared = documents.document_for(pipeline(), tmp_path, rounds={pipeline().pipeline: documents.UNSTATED})
    assert prepared.document.calibration == {"poni": documents.digest_of_bytes(BLOCK.encode())}
    assert prepared.digest == documents.digest_of_bytes(
        documents.canonical(["xrd", PLAIN, dict(prepared.document.calibration)]).encode()
    )
