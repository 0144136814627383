"""XRD, heavy half: frames become patterns.

Frames are taken one at a time, so that memory does not grow with the task, and may be read or decompressed only then. With
the fast engine and a warm cache neither pyFAI nor SciPy is imported. A bin without a valid pixel, and a frame without a positive
monitor, are NaN.
"""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import pixels
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.xrd import peaks
from cluster_side.modalities.xrd.clip import ClippedTable
from cluster_side.modalities.xrd.frames import Array, Frames, Values, beam, images, scaling, valid
from cluster_side.modalities.xrd.integrate import FrameSums, IntegrationTable
from cluster_side.modalities.xrd.spec import SUMS, XrdSettings


def load(settings: XrdSettings, calibration: Mapping[str, pathlib.Path], prepared: Mapping[str, Array]) -> Kernel:
    """Return the array function for these settings and the arrays of `model.prepare`."""
    if settings.engine == "pyfai":
        from cluster_side.modalities.xrd import pyfai_engine

        return pyfai_engine.load(settings, calibration)
    facts = json.loads(bytes(prepared["facts"]))
    shape, marks = (facts["shape"][0], facts["shape"][1]), pixels.Marks(*facts["marks"])
    pattern = IntegrationTable(prepared, "pattern")
    cake = IntegrationTable(prepared, "cake") if settings.cake else None
    clipped = ClippedTable(pattern, settings.sigma_clip) if settings.sigma_clip else None
    background = prepared["background"] if prepared["background"].size else None
    regions(pattern.radial, settings)  # wrong ranges are found before the first task

    def kernel(frames: Frames) -> dict[str, Array]:
        factor = scaling(frames, settings)
        rows, cakes = list[tuple[Values, Values]](), list[tuple[Values, Values]]()
        found = list[FrameSums]()
        for frame in images(frames, settings, shape, marks):
            good = valid(frame.dtype, settings, marks)
            sums = (clipped or pattern).integrate(frame, good)
            found.append(sums)
            rows.append(_net(pattern.mean(sums), background, settings.background_scale))
            if cake is not None:
                cakes.append(cake.mean(cake.integrate(frame, good)))
        datasets = pattern_datasets(settings, pattern, rows, factor)
        if cake is not None:
            datasets |= _cake_datasets(cake, cakes, factor)
        return datasets | _frame_datasets(found, facts["unknown"]) | beam(facts["wavelength"])

    return kernel


def regions(radial: Values, settings: XrdSettings) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.int64]]]:
    """Return the bins of each ROI and of each peak; BadInput for a range outside of the pattern."""
    rois = {name: peaks.chosen(radial, limits, f"rois.{name}") for name, limits in settings.rois.items()}
    return rois, {name: peaks.chosen(radial, limits, f"peaks.{name}") for name, limits in settings.peaks.items()}


def pattern_datasets(
    settings: XrdSettings, table: IntegrationTable, rows: list[tuple[Values, Values]], factor: Values
) -> dict[str, Array]:
    """Return the patterns of a task, and the maps of its ROIs and peaks."""
    intensity, sigma = (np.stack(one) * factor[:, None] for one in zip(*rows, strict=True))
    datasets: dict[str, Array] = {"azint1d/I": intensity.astype(np.float32), "azint1d/I_errors": sigma.astype(np.float32)}
    datasets |= {"azint1d/radial_axis": np.array(table.radial), "azint1d/norm": table.norm}
    rois, ranges = regions(table.radial, settings)
    for name, bins in rois.items():
        weight = table.norm[bins] / table.norm[bins].sum()
        datasets[f"roi/{name}"] = _summed(intensity[:, bins] * weight)
        datasets[f"roi_sigma/{name}"] = np.sqrt(_summed(np.square(sigma[:, bins] * weight)))
    for name, bins in ranges.items():
        found = peaks.peak(table.radial[bins], intensity[:, bins])
        datasets |= {f"peak_area/{name}": found.area, f"peak_position/{name}": found.position, f"peak_width/{name}": found.width}
    return datasets


def _summed(patterns: Values) -> Values:
    """Sum each pattern (pattern, bin) in the same order, however many there are; a product with a vector does not."""
    return np.asarray(np.ascontiguousarray(patterns).sum(axis=1))


def _net(found: tuple[Values, Values], background: Array | None, scale: float) -> tuple[Values, Values]:
    if background is None:
        return found
    intensity, sigma = found
    return intensity - scale * background[0], np.sqrt(np.square(sigma) + scale**2 * background[1])


def _cake_datasets(table: IntegrationTable, cakes: list[tuple[Values, Values]], factor: Values) -> dict[str, Array]:
    intensity, sigma = (np.stack(one) * factor[:, None, None] for one in zip(*cakes, strict=True))
    return {
        "azint2d/I": intensity.astype(np.float32),
        "azint2d/I_errors": sigma.astype(np.float32),
        "azint2d/radial_axis": np.array(table.radial),
        "azint2d/azimuthal_axis": np.array(table.azimuthal),
        "azint2d/norm": table.norm,
    }


def _frame_datasets(found: list[FrameSums], unknown: int) -> dict[str, Array]:
    """Return sums and counts; `unknown` pixels are lost in every frame, because dark or flat do not know them."""
    merged = {f"scan/{name}": np.sum([getattr(sums, name) for sums in found], axis=0) for name in SUMS}
    counts, lost = np.array([sums.counts for sums in found]), np.array([sums.lost + unknown for sums in found])
    return merged | {"total_counts": counts, "pixels_lost": lost}
