"""Detector elements: from the counts of each to one spectrum per exposure.

Each chosen element is brought to the channels of the configuration where its own calibration differs, multiplied by its
dead-time factor f, and summed. The variance of the sum is the sum of f^2 x counts, because the counts are what fluctuates.
Sums are in single precision, whose rounding (6e-8) stays below the noise of any count that a detector can give; half as many
bytes are half the time wherever spectra do not fit into the processor's cache.

Each spectrum is checked by itself, so that the result does not depend on the task: an element without counts adds nothing,
whatever its factor is; one with counts but without a positive factor makes the value of that exposure unknown (NaN).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import native
from cluster_side.modalities.xrf.spec import XrfSettings

Frames = Mapping[str, NDArray[Any]]
Values = NDArray[np.float64]
Spectra = NDArray[np.float32]
Shifts = Mapping[int, tuple[float, float]]
COMPILED = frozenset({"u1", "u2", "u4", "i4", "f4", "f8"})
"""Types of counts that the compiled sum takes; all others are summed by NumPy."""
BLOCK = 256
"""Spectra that are summed at once: they and their results stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class ElementSums:
    """Spectra of consecutive exposures."""

    counts: Spectra
    """(exposure, channel), corrected for dead time; a row of NaN is not known."""
    variance: Spectra
    """(exposure, channel) of the counts; the same array where they are what was counted."""
    live: NDArray[np.int64]
    """How many of the chosen elements counted anything."""


def blocks(frames: Frames, settings: XrfSettings, axis: tuple[float, float]) -> Iterator[ElementSums]:
    """Yield the sums of a task in blocks of consecutive exposures; `axis` is (zero, gain) in keV of the channels wanted.

    The arrays of a block are written over by the next one: fresh memory for each costs more than the sums.
    """
    spectra = spectra_of(frames)
    factors = _factors(frames, spectra.shape[:2]) if settings.dead_time else None
    chosen, shifts = _chosen(settings, spectra.shape[1]), _shifts(settings, axis)
    room = [np.empty((min(BLOCK, len(spectra)), spectra.shape[2]), np.float32) for _ in range(1 if factors is None else 2)]
    for start in range(0, len(spectra), BLOCK):
        rows = slice(start, start + BLOCK)
        count = len(spectra[rows])
        sums = ElementSums(room[0][:count], room[-1][:count], np.empty(count, dtype=np.int64))
        _add(sums, spectra[rows], None if factors is None else factors[rows], chosen, shifts)
        yield sums


def spectra_of(frames: Frames) -> NDArray[Any]:
    """Return the counts (exposure, element, channel); BadInput for anything else."""
    if "spectra" not in frames:
        raise BadInput(
            f"the frames have no array 'spectra', only {', '.join(sorted(frames)) or 'nothing'}; correct source.options"
        )
    spectra = frames["spectra"]
    if spectra.ndim == 2:
        spectra = spectra[:, None, :]
    if spectra.ndim != 3 or not spectra.size:
        raise BadInput(f"'spectra' has shape {spectra.shape}; expected (exposure, detector, channel)")
    return spectra


def rebinned(counts: Values, shift: tuple[float, float]) -> Values:
    """Return counts on other channels: edge e of the new ones lies at edge offset + scale x e of the old ones.

    Counts are spread evenly over their channel, so their sum is kept, but for what falls outside.
    """
    offset, scale = shift
    channels = counts.shape[1]
    edges = np.clip(offset + scale * np.arange(channels + 1), 0.0, channels)
    below = np.minimum(edges.astype(np.int64), channels - 1)
    until = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)], axis=1)
    return np.diff(until[:, below] + counts[:, below] * (edges - below), axis=1)


def _add(sums: ElementSums, spectra: NDArray[Any], factors: Values | None, chosen: list[int], shifts: Shifts) -> None:
    """Write the sums over the chosen elements; in one pass over the counts where that is compiled."""
    library, kind = native.library(), spectra.dtype.str[1:]
    if library is None or shifts or kind not in COMPILED or not (spectra.flags.c_contiguous and spectra.dtype.isnative):
        _add_plain(sums, spectra, factors, chosen, shifts)
        return
    given = None if factors is None else native.pointer(np.ascontiguousarray(factors))
    lists = np.array(chosen, dtype=np.int64), np.array([*spectra.shape, len(chosen)], dtype=np.int64)
    results = native.pointers(*lists, sums.counts, sums.variance, sums.live)
    getattr(library, f"sum_elements_{kind}")(native.pointer(spectra), given, *results)


def _add_plain(sums: ElementSums, spectra: NDArray[Any], factors: Values | None, chosen: list[int], shifts: Shifts) -> None:
    """Do the same in NumPy."""
    for array in (sums.counts, sums.variance, sums.live):
        array[:] = 0
    for element in chosen:
        counts = spectra[:, element].astype(np.float64)
        counted = counts.any(axis=1)
        if not counted.any():
            continue
        sums.live[:] += counted
        if element in shifts:
            counts = rebinned(counts, shifts[element])
        if factors is None:
            sums.counts[:] += counts
            continue
        factor = np.where(counted, factors[:, element], 0.0)[:, None]
        counts *= factor
        sums.counts[:] += counts
        counts *= factor
        sums.variance[:] += counts


def _chosen(settings: XrfSettings, elements: int) -> list[int]:
    chosen = list(range(elements)) if settings.detectors == "all" else list(settings.detectors)
    for key, named in (("detectors", chosen), ("element_energy", list(settings.element_energy))):
        if named and max(named) >= elements:
            raise BadInput(f"{key}: there is no element {max(named)}; this detector has 0 to {elements - 1}")
    return chosen


def _shifts(settings: XrfSettings, axis: tuple[float, float]) -> Shifts:
    """Return, for each element with an energy axis of its own, where the edges of the wanted channels lie in its channels.

    A channel's energy belongs to its centre, its edges lie half a channel beside it.
    """
    zero, gain = axis
    return {
        element: ((zero - 0.5 * gain - own.zero) / own.gain + 0.5, gain / own.gain)
        for element, own in settings.element_energy.items()
    }


def _factors(frames: Frames, shape: tuple[int, ...]) -> Values:
    if "dead_time_factor" not in frames:
        raise BadInput("the frames have no 'dead_time_factor'; add it to source.options, or set dead_time: false")
    factors = np.asarray(frames["dead_time_factor"], float)
    factors = factors[:, None] if factors.ndim == 1 else factors
    if factors.shape != shape:
        raise BadInput(f"'dead_time_factor' has shape {factors.shape}, expected (exposure, detector) = {shape}")
    return np.where(np.isfinite(factors) & (factors > 0), factors, np.nan)
