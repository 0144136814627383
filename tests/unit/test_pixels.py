"""Which pixels count: against naive loops over Python numbers, against pyFAI as its users call it, and alike for all modalities.

Values are drawn with marks of detectors among them, in any type of number and byte order, with masks, dummies and saturation.
"""

import functools
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector, detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities import images, native
from cluster_side.modalities.base import run
from cluster_side.modalities.dpc import moments
from cluster_side.modalities.pixels import ANY, Marks, valid_values
from cluster_side.modalities.ptychography.frames import Cut, prepare
from cluster_side.modalities.ptychography.scan import mask_of
from cluster_side.modalities.xrf.spec import XrfSettings
from tests.xrf_spectra import summed

XRD = registry.find("modalities", "xrd")
TYPES = [f"{order}{kind}" for kind in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8") for order in "<>"]
SHAPE = (40, 30)
DECTRIS, LAMBDA = Marks(-2, 1.5, known=True), Marks(0, 0.0, known=True)
PLAIN = {"points": 12, "split": "no", "solid_angle": False, "unit": "r_mm"}


def odd_values(dtype: np.dtype[Any], *, low: int = -2) -> list[float]:
    """Return what a detector writes where it measured nothing, in a type."""
    if dtype.kind == "u":
        top = int(np.iinfo(dtype).max)
        return [top, top - 1]
    if dtype.kind == "i":
        return [low, -1, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
    return [math.nan, math.inf, -math.inf, float(2**32)]


def frame_of(dtype: str, seed: int, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Return counts with odd values among them, and where those are not."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    frame = rng.poisson(4.0, SHAPE).astype(kind)
    odd = np.array(odd_values(kind), dtype=object)
    bad = rng.random(SHAPE) < share
    frame[bad] = np.array(rng.choice(odd, int(bad.sum())).tolist(), dtype=kind)
    return frame, ~bad


def naive(value: float, marks: list[tuple[float, float]], limits: tuple[float, float]) -> bool:
    """Whether one Python number is a measurement."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return limits[0] <= value <= limits[1] and not any(low <= value <= high for low, high in marks)


@given(st.sampled_from(TYPES), st.data())
@settings(max_examples=200, deadline=None)
def test_the_rule_is_what_a_loop_over_numbers_says(dtype: str, data: st.DataObject) -> None:
    kind = np.dtype(dtype)
    known = data.draw(st.sampled_from([ANY, DECTRIS, LAMBDA, Marks(known=True)]))
    dummy = data.draw(st.none() | st.tuples(st.integers(-3, 9), st.sampled_from([0, 1, 2])))
    overflow = data.draw(st.none() | st.integers(5, 100))
    limits = [-math.inf, math.inf]
    marks: list[tuple[float, float]] = [(dummy[0] - dummy[1], dummy[0] + dummy[1])] if dummy else []
    if kind.kind == "f":
        numbers = st.floats(-5, 120, width=16) | st.sampled_from([math.nan, math.inf, -math.inf, float(2**32), -0.75, -3.5])
        marks += [(2**32 - 2, 2**32)]
        marks += [(-3.5, -0.5)] if known is DECTRIS else [(0, 0)] if known is LAMBDA else []
    else:
        info = np.iinfo(kind)
        least, most = int(info.min), int(info.max)
        numbers = st.integers(max(least, -6), min(most, 120)) | st.sampled_from(
            [least, least + 1, most, most - 1, most - 2, most - 3]
        )
        if kind.kind == "u":
            limits = [0, most - {ANY: 2, DECTRIS: 3}.get(known, 1)]
            marks += [(0, 0)] if known is LAMBDA else []
        else:
            limits = [least + 1, most - 1]
            marks += {ANY: [(-2, -1)], DECTRIS: [(-3, -1)], LAMBDA: [(0, 0)]}.get(known, [])
    if overflow is not None:
        limits[1] = min(limits[1], overflow - (1 if kind.kind != "f" else 1e-12))
    values = np.array(data.draw(st.lists(numbers, min_size=1, max_size=20)), dtype=kind)
    valid = valid_values(kind, known, dummy and (float(dummy[0] - dummy[1]), float(dummy[0] + dummy[1])), overflow)
    expected = [naive(value, marks, (limits[0], limits[1])) for value in values.tolist()]
    assert valid.of(values).tolist() == expected
    assert all(expected) or not valid.all_of(values)


@functools.cache
def poni_of(detector: str) -> tuple[str, tuple[int, int]]:
    """Return the text of a poni file for a detector, or for one that nobody names, and the shape of its images."""
    found = Detector(1e-4, 1e-4, max_shape=SHAPE, orientation=3) if detector == "Detector" else detector_factory(detector)
    shape = (int(found.shape[0]), int(found.shape[1]))
    config = f'{{"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": {list(SHAPE)}, "orientation": 3}}'
    config = config if detector == "Detector" else '{"orientation": 3}'
    middle = found.pixel1 * shape[0] / 2, found.pixel2 * shape[1] / 2
    text = f"poni_version: 2.1\nDetector: {detector}\nDetector_config: {config}\nDistance: 0.2\n"
    return text + f"Poni1: {middle[0]}\nPoni2: {middle[1]}\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n", shape


@pytest.fixture
def poni(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "cal.poni").write_text(poni_of("Detector")[0])
    return tmp_path / "cal.poni"


@given(st.sampled_from(TYPES), st.integers(0, 10**6), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pattern_has_the_counts_of_its_valid_pixels(
    poni: pathlib.Path, dtype: str, seed: int, compiled: bool, masked: bool
) -> None:
    """Sums over all bins, whatever the bins are; compiled or not, they are those of the valid pixels alone."""
    frame, good = frame_of(dtype, seed)
    calibration = {"poni": poni}
    if masked:
        mask = np.random.default_rng(seed).random(SHAPE) < 0.2
        np.save(poni.with_name("mask.npy"), mask.astype(dtype))
        calibration["mask"] = poni.with_name("mask.npy")
        good = good & ~mask
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(native, "library", lambda: None)
        found = run(XRD, {"frames": frame[None]}, PLAIN, calibration)
    assert found["total_counts"][0] == float(frame[good].astype(float).sum())
    assert found["scan/signal"].sum() == pytest.approx(frame[good].astype(float).sum())
    assert found["scan/norm"].sum() == pytest.approx(good.sum())
    reference = run(XRD, {"frames": frame[None]}, PLAIN | {"engine": "pyfai"}, calibration)
    np.testing.assert_allclose(found["azint1d/I"], reference["azint1d/I"], rtol=1e-6)


@given(st.sampled_from(TYPES), st.sampled_from(TYPES), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_calibration_images_have_marks_too(poni: pathlib.Path, dtype: str, other: str, seed: int) -> None:
    """Frames of 10, a dark of 2 and a background of 4, a flat of 1, with marks in all of them: 10 - 2 - (4 - 2), everywhere."""
    calibration = {"poni": poni}
    for number, (role, value) in enumerate({"dark": 2, "background": 4, "flat": 1}.items()):
        image, good = frame_of(other if role == "dark" else dtype, seed + number, 0.05)
        image[good] = value
        np.save(poni.with_name(f"{role}.npy"), image)
        calibration[role] = poni.with_name(f"{role}.npy")
    frame, good = frame_of(dtype, seed + 9, 0.05)
    frame[good] = 10
    found = run(XRD, {"frames": frame[None]}, PLAIN, calibration)
    np.testing.assert_allclose(found["azint1d/I"], 6.0, rtol=1e-6)
    del calibration["background"]
    for engine in ("fast", "pyfai"):
        found = run(XRD, {"frames": frame[None]}, PLAIN | {"engine": engine}, calibration)
        np.testing.assert_allclose(found["azint1d/I"], 8.0, rtol=1e-6)


DRAWN = st.sampled_from(["u2", "u4", ">u4", "i2", "i4", ">i4", "f4"])


@pytest.mark.long
@given(st.sampled_from(["Pilatus100k", "Lambda60k", "Maxipix"]), DRAWN, st.integers(0, 10**6), st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_engines_are_pyfai_as_its_users_call_it(
    tmp_path: pathlib.Path, detector: str, dtype: str, seed: int, dark: bool
) -> None:
    """pyFAI is given the frame, the number of bins and the dark: it knows the marks of its detectors itself."""
    text, shape = poni_of(detector)
    (tmp_path / "cal.poni").write_text(text)
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    frame, calibration = rng.poisson(2.0, shape).astype(kind), {"poni": tmp_path / "cal.poni"}
    if detector == "Pilatus100k":
        marks = np.array([-1, -2, -3]).astype(kind if kind.kind != "u" else f"i{kind.itemsize}").astype(kind)
        frame[rng.random(shape) < 0.01] = marks[seed % 3]
    given: dict[str, Any] = {}
    if dark:
        given["dark"] = rng.uniform(0, 1, shape).astype("f4")
        given["dark"][rng.random(shape) < 0.001] = np.nan
        np.save(tmp_path / "dark.npy", given["dark"])
        calibration["dark"] = tmp_path / "dark.npy"
    ai = AzimuthalIntegrator.sload(str(tmp_path / "cal.poni"))
    theirs = ai.integrate1d(frame.astype(kind.newbyteorder("=")), 200, method=("bbox", "csr", "cython"), unit="q_nm^-1", **given)
    there = np.asarray(theirs.sum_normalization) > 0
    for engine in ("fast", "pyfai"):
        ours = run(XRD, {"frames": frame[None]}, {"points": 200, "engine": engine}, calibration)
        np.testing.assert_allclose(ours["azint1d/I"][0, there], theirs.intensity[there], rtol=1e-6, atol=1e-7)


@pytest.mark.long
def test_a_pilatus_with_dead_pixels_at_few_counts_is_pyfais(tmp_path: pathlib.Path) -> None:
    """A simulated Pilatus 1M (ESRF, APS, Diamond: int32, gaps -1, dead pixels -2) at 0.05 counts in a pixel."""
    text, shape = poni_of("Pilatus1M")
    (tmp_path / "cal.poni").write_text(text)
    rng = np.random.default_rng(5)
    frame = rng.poisson(0.05, shape).astype("i4")
    frame[detector_factory("Pilatus1M").mask > 0] = -1
    frame[rng.random(shape) < 0.0005] = -2
    theirs = AzimuthalIntegrator.sload(str(tmp_path / "cal.poni")).integrate1d(frame, 1000)
    for engine in ("fast", "pyfai"):
        ours = run(XRD, {"frames": frame[None]}, {"points": 1000, "engine": engine}, {"poni": tmp_path / "cal.poni"})
        np.testing.assert_allclose(ours["azint1d/I"][0], theirs.intensity, rtol=1e-6, atol=1e-9)


@given(st.sampled_from(TYPES), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_modalities_take_the_same_pixels(poni: pathlib.Path, dtype: str, seed: int) -> None:
    frame, good = frame_of(dtype, seed)
    counts = float(frame[good].astype(float).sum())
    assert run(XRD, {"frames": frame[None]}, PLAIN, {"poni": poni})["total_counts"] == [counts]
    found = moments.profiles(frame[None], moments.FrameCorrection())
    assert moments.total(found) == pytest.approx(counts)
    assert found.lost.tolist() == [bool((~good).any())]
    seen = prepare(frame[None], Cut(centre="corner"))
    np.testing.assert_array_equal(seen.good, good)
    assert seen.counts.sum() == pytest.approx(counts)
    spectra = {"spectra": frame[:, None, :]}  # each row is a spectrum
    for library in (native.library, lambda: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "library", library)
            sums = summed(spectra, XrfSettings(dead_time=False))
        known = good.all(axis=1)
        np.testing.assert_array_equal(np.isnan(sums).all(axis=1), ~known)
        np.testing.assert_allclose(sums[known], frame[known].astype(float))


@given(st.sampled_from(TYPES), st.sampled_from(TYPES), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dpc_knows_the_marks_of_dark_and_empty_beam(tmp_path: pathlib.Path, dtype: str, other: str, seed: int) -> None:
    """What is not known in the dark or the mask is left out of frames and reference alike."""
    frame, good = frame_of(dtype, seed)
    dark, lit = frame_of(other, seed + 1)
    dark[lit] = 1
    np.save(tmp_path / "dark.npy", dark)
    np.save(tmp_path / "reference.npy", frame)
    calibration = {name: tmp_path / f"{name}.npy" for name in ("dark", "reference")}
    found = run(registry.find("modalities", "dpc"), {"frames": frame[None]}, {"method": "fourier_shift"}, calibration)
    both = good & lit
    assert found["sum"][0] == pytest.approx(float((frame[both].astype(float) - 1).sum()), rel=1e-5, abs=1e-2)
    if found["sum"][0] > 0:
        assert found["com_x"][0] == pytest.approx(0.0, abs=1e-6)
        assert found["amplitude"][0] == pytest.approx(1.0)


def test_panels_in_any_byte_order_and_what_they_do_not_cover(poni: pathlib.Path) -> None:
    for dtype in TYPES:
        left = np.full((1, 40, 10), 5, dtype)
        settings = PLAIN | {"panels": {"a": [0, 0], "b": [0, 20]}}
        found = run(XRD, {"a": left, "b": left}, settings, {"poni": poni})
        assert found["pixels_lost"] == [400]
        assert set(found["azint1d/I"][0][np.isfinite(found["azint1d/I"][0])]) == {5.0}
    with pytest.raises(BadInput, match=r"panels\.b holds uint16, the first uint32"):
        run(XRD, {"a": np.ones((1, 40, 10), "u4"), "b": np.ones((1, 40, 10), "u2")}, settings, {"poni": poni})


def test_an_image_from_which_something_was_subtracted_is_refused(poni: pathlib.Path) -> None:
    """In signed integers of an unknown detector -1 is a mark; in a difference it is a number, and nobody can tell."""
    frame = np.random.default_rng(0).normal(0, 5, SHAPE).astype("i4")
    for name in ("xrd", "dpc"):
        with pytest.raises(BadInput, match=r"'frames' holds int32 down to -1.: something was subtracted"):
            run(
                registry.find("modalities", name),
                {"frames": frame[None]},
                PLAIN if name == "xrd" else {},
                {"poni": poni} if name == "xrd" else {},
            )
    found = run(XRD, {"frames": frame[None].astype("f4")}, PLAIN, {"poni": poni})
    assert found["total_counts"][0] == frame.sum()


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("kind", ["npy", "h5", "edf", "tif"])
@pytest.mark.parametrize("order", "<>")
def test_a_mask_is_read_whatever_it_is_called(kind: str, suffix: str, order: str, tmp_path: pathlib.Path) -> None:
    """Calibration files travel without their suffix: content decides, also of what is compressed."""
    import bz2
    import gzip

    import fabio
    import h5py

    mask = (np.random.default_rng(1).random(SHAPE) < 0.3).astype(f"{order}u2")
    plain = tmp_path / f"plain.{kind}"
    if kind == "npy":
        np.save(plain, mask)
    elif kind == "h5":
        with h5py.File(plain, "w") as file:
            file["other"], file["mask"] = np.zeros(SHAPE), mask
    else:
        made = fabio.edfimage.EdfImage if kind == "edf" else fabio.tifimage.TifImage
        made(data=mask.astype("u2")).write(str(plain))
    content = plain.read_bytes()
    content = {"": content, ".gz": gzip.compress(content), ".bz2": bz2.compress(content)}[suffix]
    (tmp_path / "mask").write_bytes(content)
    np.testing.assert_array_equal(images.mask({"mask": tmp_path / "mask"}, SHAPE), mask != 0)


def test_an_hdf5_mask_leads_nowhere(tmp_path: pathlib.Path) -> None:
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["mask"] = np.zeros(SHAPE)
    with h5py.File(tmp_path / "mask", "w") as file:
        file["mask"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "mask")
    with pytest.raises(BadInput, match=r"calibration\.mask: .*external link /mask leads to .*other\.h5"):
        images.mask({"mask": tmp_path / "mask"}, SHAPE)


def test_a_mask_that_comes_with_the_frames_is_used_by_all(poni: pathlib.Path) -> None:
    """Files of CXI bring one; other formats may, as an array called mask."""
    rng = np.random.default_rng(3)
    frame, bad = rng.poisson(50.0, SHAPE).astype(">u2"), rng.random(SHAPE) < 0.1
    frames = {"frames": np.stack([frame, frame]), "mask": np.stack([bad, bad]).astype("u1")}
    counts = float(frame[~bad].sum())
    assert run(XRD, frames, PLAIN, {"poni": poni})["total_counts"].tolist() == [counts, counts]
    assert run(registry.find("modalities", "dpc"), frames, {}, {})["sum"] == pytest.approx([counts, counts])
    np.testing.assert_array_equal(mask_of(frames, None), bad)
