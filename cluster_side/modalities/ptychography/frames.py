"""From detector images to amplitudes: which pixels are good, where the centre is, cut, rebinned, zero frequency in the corner.

Bad pixels are those that a mask names, that are not numbers, negative (detectors mark gaps so), or at or above the saturation
in any frame. They are filled with zero and left out of every comparison.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Image = NDArray[np.float32]
DARK = 1.0
"""Mean counts per frame below which a scan has no light."""
LARGEST_BORDER = 0.05
"""The automatic centre looks at pixels above this share of the brightest."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part of the detector is used. `centre` (row, column) is the pixel of zero frequency; "corner": already in place."""

    centre: tuple[float, float] | str = "auto"
    size: int | None = None
    rebin: int = 1
    saturation: float | None = None
    near: bool = False
    """Near field: the image stays as it is, no zero frequency is moved into the corner."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Counts (n, h, w), float32, zero frequency in the corner; good pixels (h, w); the centre that was found."""

    counts: Image
    good: NDArray[np.bool_]
    centre: tuple[float, float]


def prepare(raw: NDArray[Any], cut: Cut, mask: NDArray[np.bool_] | None = None) -> Prepared:
    """Return the frames ready to compute with; BadInput when there is nothing in them. `mask` is True where pixels are bad."""
    if raw.ndim != 3:
        raise BadInput(f"frames: an array of shape {raw.shape} holds no images; name the dataset of the detector's frames")
    good = _good(raw, cut.saturation, mask)
    mean = _mean(raw, good)
    if mean.sum() < DARK:
        raise BadInput(
            f"frames: all {len(raw)} frames are dark ({mean.sum():.2g} counts per frame, {good.mean():.0%} of the pixels good); "
            "was the shutter open, and is the mask the right way round (1 = bad)?"
        )
    if cut.centre == "corner":
        counts = np.where(good, np.nan_to_num(raw), 0).astype(np.float32)
        return Prepared(counts, good, (0.0, 0.0))
    centre = _centre(mean) if cut.centre == "auto" else cut.centre
    assert not isinstance(centre, str)
    rows, columns = _window(raw.shape[1:], centre, cut)
    counts = np.where(good[rows, columns], np.nan_to_num(raw[:, rows, columns]), 0).astype(np.float32)
    counts, kept = _rebinned(counts, cut.rebin), _rebinned(~good[None, rows, columns], cut.rebin)[0] == 0
    shift = (0, 0) if cut.near else (counts.shape[1] // 2, counts.shape[2] // 2)
    return Prepared(np.roll(counts, (-shift[0], -shift[1]), axis=(1, 2)), np.roll(kept, (-shift[0], -shift[1]), (0, 1)), centre)


def _good(raw: NDArray[Any], saturation: float | None, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if mask is not None and mask.shape != raw.shape[1:]:
        raise BadInput(f"mask: it has shape {mask.shape}, the frames {raw.shape[1:]}; make it from the same detector")
    good = np.ones(raw.shape[1:], bool) if mask is None else ~mask
    limit = saturation if saturation is not None else np.iinfo(raw.dtype).max if raw.dtype.kind in "iu" else np.inf
    for frame in raw:
        good &= (frame >= 0) & (frame < limit)  # NaN is neither
    return good


def _mean(raw: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(good, np.nan_to_num(raw.mean(axis=0, dtype=np.float64)), 0.0)


def _centre(mean: NDArray[np.float64]) -> tuple[float, float]:
    """Return the centre of mass of the mean frame's bright part."""
    bright = np.where(mean > LARGEST_BORDER * mean.max(), mean, 0.0)
    total = bright.sum()
    rows, columns = (float((bright.sum(axis=1 - axis) * np.arange(bright.shape[axis])).sum() / total) for axis in (0, 1))
    return rows, columns


def _window(shape: tuple[int, ...], centre: tuple[float, float], cut: Cut) -> tuple[slice, slice]:
    size = cut.size or 2 * min(min(round(at), length - round(at)) for at, length in zip(centre, shape, strict=True))
    size -= size % (2 * cut.rebin)
    firsts = [round(at) - size // 2 for at in centre]
    if size < 8 or any(first < 0 or first + size > length for first, length in zip(firsts, shape, strict=True)):
        raise BadInput(
            f"crop: {size} pixels around row {centre[0]:.1f}, column {centre[1]:.1f} do not fit into {shape[0]} x {shape[1]}; "
            "set a smaller crop, or centre to where the beam is"
        )
    return slice(firsts[0], firsts[0] + size), slice(firsts[1], firsts[1] + size)


def _rebinned(frames: NDArray[Any], times: int) -> NDArray[Any]:
    if times == 1:
        return frames
    count, height, width = frames.shape
    binned: NDArray[Any] = frames.reshape(count, height // times, times, width // times, times).sum(axis=(2, 4))
    return binned
