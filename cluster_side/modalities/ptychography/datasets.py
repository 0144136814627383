"""From the engines' state to the datasets of a scan: ramps removed, axes in metres, live pictures, agreement of halves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography import quality
from cluster_side.modalities.ptychography.engines.backend import Backend
from cluster_side.modalities.ptychography.engines.state import ReconstructionState
from cluster_side.modalities.ptychography.scan import PtychographyScan

Datasets = dict[str, NDArray[Any]]


def picture(scan: PtychographyScan, backend: Backend, state: ReconstructionState) -> Datasets:
    """Return what is shown while the engines run: object, probe modes and errors so far."""
    whole, probe = (np.asarray(backend.to_host(array)) for array in (state.object, state.probe))
    whole, probe = _flat(scan, whole, probe)
    phase, amplitude = np.angle(whole).astype(np.float32), np.abs(whole).astype(np.float32)
    rows, columns = _axes(scan)
    return {
        "object": whole,
        "object_phase": phase,
        "object_amplitude": amplitude,
        "object_y": rows,
        "object_x": columns,
        "probe": probe,
        "error": np.asarray(state.errors, np.float64),
        "pixel_size": np.full(2, scan.pixel),
    }


def reconstructed(scan: PtychographyScan, backend: Backend, state: ReconstructionState, now: NDArray[np.float64]) -> Datasets:
    """Return all datasets of a finished scan; `now` are the positions (pixels) of its known indexes."""
    refined = np.full(scan.measured.shape, np.nan)
    refined[scan.known] = scan.measured[scan.known] + (now - scan.pixels) * scan.pixel * np.asarray(scan.flip)
    return picture(scan, backend, state) | {
        "position_y_used": scan.measured[:, 0],
        "position_x_used": scan.measured[:, 1],
        "position_y_refined": refined[:, 0],
        "position_x_refined": refined[:, 1],
    }


def agreement(scan: PtychographyScan, one: NDArray[Any], other: NDArray[Any]) -> Datasets:
    """Return how far the objects of two half scans agree, in the middle of the scanned area."""
    first, last = (quality.covered(np.asarray(half, complex), scan.pixels, scan.probe_shape) for half in (one, other))
    first, last = quality.without_ramp(first)[0], quality.without_ramp(last)[0]
    rings = quality.ring_correlation(first, quality.aligned(first, last))
    crossing = rings.crossing
    return {
        "frc": rings.correlation,
        "frc_half_bit": rings.half_bit,
        "frc_frequency": rings.frequency / scan.pixel,
        "resolution": np.array([scan.pixel / (2 * crossing) if crossing else np.nan]),
    }


def _flat(scan: PtychographyScan, whole: NDArray[Any], probe: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return object and probe with the object's phase ramp given to the probe (far field; in the near field it is a shift)."""
    inside = quality.covered(whole, scan.pixels, scan.probe_shape)
    if scan.geometry.source is not None:
        return np.asarray(whole * np.exp(-1j * np.angle(inside.sum())), np.complex64), probe
    slopes = quality.ramp_of(inside)
    flat = whole * np.conj(quality.ramp((whole.shape[0], whole.shape[1]), slopes))
    flat = flat * np.exp(-1j * np.angle(quality.covered(flat, scan.pixels, scan.probe_shape).sum()))
    tilted = probe * quality.ramp((probe.shape[1], probe.shape[2]), slopes)
    return flat.astype(np.complex64), tilted.astype(np.complex64)


def _axes(scan: PtychographyScan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the object's rows and columns lie, in the coordinates of the positions, in metres."""
    axes = []
    for axis in (0, 1):
        first = scan.known[0]
        under = scan.pixels[0, axis] + scan.probe_shape[axis] / 2
        step = scan.pixel * scan.flip[axis]
        axes.append(scan.measured[first, axis] + (np.arange(scan.shape[axis]) - under) * step)
    return axes[0], axes[1]
