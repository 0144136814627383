"""From detector images to amplitudes: which pixels are good, where the centre is, cut, rebinned, zero frequency in the corner.

Bad pixels are those that a mask names, and those that are no measurement (`modalities.pixels`), negative, or at or above the
saturation in any frame. They are filled with zero and left out of every comparison. A detector of megapixels is cut while it is
read, so only what is used is ever in memory; and each rank reads its own share of the frames.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.lazy import chosen
from cluster_side.modalities.context import Alone, Team, together
from cluster_side.modalities.pixels import Valid, valid_values

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
class PreparedFrames:
    """Frames that are ready to compute with, zero frequency in the corner."""

    counts: Image
    """(rows, h, w), float32."""
    good: NDArray[np.bool_]
    """(h, w): pixels that are good in all frames of the scan."""
    centre: tuple[float, float]
    rows: NDArray[np.int64]
    """Which frames of the scan are here, in rising order."""
    total: int
    """Frames of the scan."""

    def of(self, which: NDArray[np.int64]) -> Image:
        """Return the counts of some frames of the scan that are here."""
        at = np.searchsorted(self.rows, which)
        assert np.array_equal(self.rows[np.minimum(at, len(self.rows) - 1)], which), "a frame that is not here"
        return self.counts[at]


@dataclass(frozen=True, slots=True)
class Share:
    """Which frames of a scan one rank cuts, in rising order, and the team with which it sums over all frames."""

    rows: NDArray[np.int64]
    team: Team


def prepare(raw: Any, cut: Cut, mask: NDArray[np.bool_] | None = None, share: Share | None = None) -> PreparedFrames:
    """Return the frames (n, rows, columns) ready to compute with, or a share of them; BadInput when there is nothing in them.

    `raw` is read frame by frame, once; twice where the centre has to be found. `mask` is True where pixels are bad.
    """
    share = share or Share(np.arange(len(raw)), Alone())
    cutter = cutter_for(raw, cut, mask, share)
    together(share.team, lambda: cutter.take(raw, share.rows))
    return cutter.prepared(len(raw))


def cutter_for(raw: Any, cut: Cut, mask: NDArray[np.bool_] | None = None, share: Share | None = None) -> "Cutter":
    """Return a cutter for frames like these, around their centre; BadInput if they cannot be cut so."""
    share = share or Share(np.arange(len(raw)), Alone())
    if raw.ndim != 3:
        raise BadInput(f"frames: an array of shape {raw.shape} holds no images; name the dataset of the detector's frames")
    if mask is not None and mask.shape != raw.shape[1:]:
        raise BadInput(f"mask: it has shape {mask.shape}, the frames {raw.shape[1:]}; make it from the same detector")
    trusted, valid = np.ones(raw.shape[1:], bool) if mask is None else ~mask, _valid(raw.dtype, cut)
    if cut.centre == "corner":
        return Cutter(_Window(slice(None), slice(None)), trusted, valid, (0.0, 0.0), share.team)
    centre = _centre(_mean(raw, trusted, valid, share)) if cut.centre == "auto" else cut.centre
    assert not isinstance(centre, str)
    window = _window(raw.shape[1:], centre, cut)
    height, width = ((one.stop - one.start) // cut.rebin for one in (window.rows, window.columns))
    shift = (0, 0) if cut.near else (-(height // 2), -(width // 2))
    return Cutter(replace(window, rebin=cut.rebin, shift=shift), trusted, valid, centre, share.team)


@dataclass(frozen=True, slots=True)
class _Window:
    """Which pixels of a frame are used, and where they go."""

    rows: slice
    columns: slice
    rebin: int = 1
    shift: tuple[int, int] = (0, 0)

    def cut(self, frame: NDArray[Any]) -> NDArray[Any]:
        return frame[self.rows, self.columns]

    def placed(self, part: NDArray[Any]) -> NDArray[Any]:
        return np.roll(_rebinned(part, self.rebin), self.shift, (0, 1))


class Cutter:
    """Cuts frames as they come; a pixel that is bad in one of them, on any rank, is zero in all."""

    def __init__(
        self, window: _Window, trusted: NDArray[np.bool_], valid: Valid, centre: tuple[float, float], team: Team
    ) -> None:
        self._window, self._valid, self._centre, self._team = window, valid, centre, team
        self._bad = window.placed(~window.cut(trusted)) > 0
        self._parts: list[Image] = []
        self._rows: list[NDArray[np.int64]] = []

    def take(self, raw: Any, rows: NDArray[np.int64]) -> None:
        """Cut these frames of a scan (n, rows, columns), which follow those that were taken before."""
        counts = np.empty((len(rows), *self._bad.shape), np.float32)
        for at, frame in enumerate(chosen(raw, rows.tolist())):
            part = self._window.cut(frame)
            if not (believed := self._valid.of(part)).all():
                self._bad |= self._window.placed(~believed) > 0
                part = np.where(believed, part, 0)
            counts[at] = self._window.placed(part)
        self._parts.append(counts)
        self._rows.append(rows)

    def prepared(self, total: int) -> PreparedFrames:
        """Return all frames so far, of a scan with so many; BadInput if they are dark."""
        bad = self._bad.astype(np.float32)
        self._team.add_up([bad])
        self._bad = bad > 0
        counts = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._parts = [counts]
        counts[:, self._bad] = 0.0
        light = np.array([counts.sum(dtype=np.float64)])
        self._team.add_up([light])
        _check_light(float(light[0]) / total, total, float(1 - self._bad.mean()))
        return PreparedFrames(counts, ~self._bad, self._centre, np.concatenate(self._rows), total)


def _mean(raw: Any, trusted: NDArray[np.bool_], valid: Valid, share: Share) -> NDArray[np.float64]:
    """Return the mean frame of all ranks, zero where a pixel is bad in any."""
    bad, total = (~trusted).astype(np.float32), np.zeros(raw.shape[1:])

    def read() -> None:
        for frame in chosen(raw, share.rows.tolist()):
            believed = valid.of(frame)
            bad[~believed] = 1.0
            np.add(total, np.where(believed, frame, 0), out=total)

    together(share.team, read)
    share.team.add_up([bad, total])
    mean = np.where(bad == 0, total / len(raw), 0.0)
    _check_light(float(mean.sum()), len(raw), float((bad == 0).mean()))
    return mean


def _valid(dtype: np.dtype[Any], cut: Cut) -> Valid:
    """Return which counts are to be believed; a negative one has no amplitude."""
    return valid_values(dtype, overflow=cut.saturation, least=0.0)


def _check_light(counts: float, frames: int, good: float) -> None:
    if counts < DARK:
        raise BadInput(
            f"frames: all {frames} frames are dark ({counts:.2g} counts per frame, {good:.0%} of the pixels good); "
            "was the shutter open, and is the mask the right way round (1 = bad)?"
        )


def _centre(mean: NDArray[np.float64]) -> tuple[float, float]:
    """Return the centre of mass of the mean frame's bright part."""
    bright = np.where(mean > LARGEST_BORDER * mean.max(), mean, 0.0)
    total = bright.sum()
    rows, columns = (float((bright.sum(axis=1 - axis) * np.arange(bright.shape[axis])).sum() / total) for axis in (0, 1))
    return rows, columns


def _window(shape: tuple[int, ...], centre: tuple[float, float], cut: Cut) -> _Window:
    size = cut.size or 2 * min(min(round(at), length - round(at)) for at, length in zip(centre, shape, strict=True))
    size -= size % (2 * cut.rebin)
    firsts = [round(at) - size // 2 for at in centre]
    if size < 8 or any(first < 0 or first + size > length for first, length in zip(firsts, shape, strict=True)):
        raise BadInput(
            f"crop: {size} pixels around row {centre[0]:.1f}, column {centre[1]:.1f} do not fit into {shape[0]} x {shape[1]}; "
            "set a smaller crop, or centre to where the beam is"
        )
    return _Window(slice(firsts[0], firsts[0] + size), slice(firsts[1], firsts[1] + size))


def _rebinned(frame: NDArray[Any], times: int) -> NDArray[Any]:
    if times == 1:
        return frame
    height, width = frame.shape
    binned: NDArray[Any] = frame.reshape(height // times, times, width // times, times).sum(axis=(1, 3))
    return binned
