"""Detector elements: from the counts of each to one spectrum per exposure.

Each chosen element is brought to the channels of the configuration where its own calibration differs, multiplied by its
dead-time factor f, and summed. The variance of the sum is the sum of f^2 x counts, because the counts are what fluctuates.
Sums are in single precision, whose rounding (6e-8) stays below the noise of any count that a detector can give; half as many
bytes are half the time wherever spectra do not fit into the processor's cache.

Which elements are live is decided spectrum by spectrum, so that it does not depend on the task: an element without counts adds
nothing, whatever its factor is; one with counts but without a positive factor makes the value of that exposure unknown (NaN).
So does a channel that is no count (`modalities.pixels`): NaN, negative, or all bits set, as a card writes that lost an exposure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import native
from cluster_side.modalities.pixels import LARGEST_UINT32, Valid, valid_values
from cluster_side.modalities.xrf.spec import XrfSettings

Frames = Mapping[str, NDArray[Any]]
Values = NDArray[np.float64]
Spectra = NDArray[np.float32]
Shifts = Mapping[int, tuple[float, float]]
COMPILED = frozenset({"u1", "u2", "u4", "i4", "f4", "f8"})
"""Types of counts that the compiled sum takes; all others are summed by NumPy."""
SPECTRA, FACTOR = "spectra", "dead_time_factor"
"""The array of counts, and the one of dead-time factors; those of another array NAME are called NAME_dead_time_factor."""
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
    wrong: NDArray[np.int64]
    """1 where a channel of a chosen element is no count."""


def blocks(frames: Frames, settings: XrfSettings, axis: tuple[float, float]) -> Iterator[ElementSums]:
    """Yield the sums of a task in blocks of consecutive exposures; `axis` is (zero, gain) in keV of the channels wanted.

    The arrays of a block are written over by the next one: fresh memory for each costs more than the sums.
    """
    spectra = spectra_of(frames, settings)
    factors = _factors(frames, settings, spectra.shape[:2]) if settings.dead_time else None
    chosen, shifts = _chosen(settings, spectra.shape[1]), _shifts(settings, axis)
    room = [np.empty((min(BLOCK, len(spectra)), spectra.shape[2]), np.float32) for _ in range(1 if factors is None else 2)]
    for start in range(0, len(spectra), BLOCK):
        rows = slice(start, start + BLOCK)
        count = len(spectra[rows])
        sums = ElementSums(room[0][:count], room[-1][:count], *np.empty((2, count), dtype=np.int64))
        _add(sums, spectra[rows], None if factors is None else factors[rows], chosen, shifts)
        yield sums


def spectra_of(frames: Frames, settings: XrfSettings) -> NDArray[Any]:
    """Return the counts (exposure, element, channel) of all detectors; BadInput for anything else."""
    parts = [_spectra(frames, name) for name in settings.spectra]
    if len(parts) == 1:
        return parts[0]
    for name, part in zip(settings.spectra, parts, strict=True):
        if part.shape[2] != parts[0].shape[2]:
            raise BadInput(
                f"spectra: {name!r} has {part.shape[2]} channels, {settings.spectra[0]!r} has {parts[0].shape[2]}; "
                "detectors that are summed need one number of channels: fit them in two pipelines"
            )
    if len({part.dtype for part in parts}) > 1:  # what is no count in one type may be one in another
        parts = [np.where(valid_counts(part.dtype).of(part), part, np.nan) for part in parts]
    return np.concatenate(parts, axis=1)


def _spectra(frames: Frames, name: str) -> NDArray[Any]:
    if name not in frames:
        raise BadInput(
            f"the frames have no array {name!r}, only {', '.join(sorted(frames)) or 'nothing'}; correct source.options or spectra"
        )
    spectra = frames[name]
    if spectra.ndim == 2:
        spectra = spectra[:, None, :]
    if spectra.ndim != 3 or not spectra.size or spectra.dtype.kind not in "biuf":
        raise BadInput(f"{name!r} holds {spectra.dtype} of shape {spectra.shape}; expected counts (exposure, detector, channel)")
    return spectra


def valid_counts(dtype: np.dtype[Any]) -> Valid:
    """Return which values of a type are counts of a channel; nobody counts to 2^32 in one, so larger ones are marks."""
    return valid_values(dtype, overflow=LARGEST_UINT32 - 1 if dtype.kind == "f" else None, least=0.0)


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
    results = native.pointers(*lists, sums.counts, sums.variance, sums.live, sums.wrong)
    getattr(library, f"sum_elements_{kind}")(native.pointer(spectra), given, *results)


def _add_plain(sums: ElementSums, spectra: NDArray[Any], factors: Values | None, chosen: list[int], shifts: Shifts) -> None:
    """Do the same in NumPy."""
    for array in (sums.counts, sums.variance, sums.live, sums.wrong):
        array[:] = 0
    valid = valid_counts(spectra.dtype)
    for element in chosen:
        good = valid.of(spectra[:, element])
        sums.wrong[:] |= ~good.all(axis=1)
        counts = np.where(good, spectra[:, element], 0).astype(np.float64)
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
    sums.counts[sums.wrong > 0] = sums.variance[sums.wrong > 0] = np.nan


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


def _factors(frames: Frames, settings: XrfSettings, shape: tuple[int, ...]) -> Values:
    parts = []
    for spectra in settings.spectra:
        name = FACTOR if spectra == SPECTRA else f"{spectra}_{FACTOR}"
        if name not in frames:
            raise BadInput(f"the frames have no {name!r}; add it to source.options, or set dead_time: false")
        part = np.asarray(frames[name], float)
        parts.append(part[:, None] if part.ndim == 1 else part)
    factors = np.concatenate(parts, axis=1)
    if factors.shape != shape:
        raise BadInput(f"{FACTOR!r} has shape {factors.shape}, expected (exposure, detector) = {shape}")
    return np.where(np.isfinite(factors) & (factors > 0), factors, np.nan)
