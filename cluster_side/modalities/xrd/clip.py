"""Integration that leaves out outliers: sigma clipping within each bin.

The algorithm is pyFAI's `sigma_clip_ng` (error model "azimuthal", no pixel splitting): mean and standard deviation of the
normalised pixels of a bin are computed, pixels further away than the threshold are left out, and so on until none is. The
threshold is at least that of Chauvenet's criterion for the number of pixels, so that bins with many pixels do not lose good ones.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.pixels import Valid
from cluster_side.modalities.xrd.integrate import FrameSums, IntegrationTable
from cluster_side.modalities.xrd.spec import SigmaClip

Array = NDArray[Any]
Values = NDArray[np.float64]
FEWEST = 3
"""Chauvenet's criterion is used with at least so many pixels."""


class ClippedTable:
    """The pixels of a table in the order of their bins."""

    def __init__(self, table: IntegrationTable, wanted: SigmaClip) -> None:
        self._wanted, self._count = wanted, table.sums.shape[1]
        pixels, bins, _ = table.entries()
        order = np.argsort(bins, kind="stable")
        self._pixels, self._bins = pixels[order], bins[order].astype(np.int64)
        self._weight = table.weight[self._pixels].astype(np.float64)
        self._dark = table.dark[self._pixels].astype(np.float64) if table.dark.size else np.zeros(1)
        self._first = np.searchsorted(self._bins, np.arange(self._count))
        self._filled = np.flatnonzero(np.diff(np.append(self._first, len(self._bins))))

    def integrate(self, frame: Array, valid: Valid) -> FrameSums:
        """Return the sums of one frame without its outliers; the variance is that of the pixels around the mean of their bin."""
        raw = frame.reshape(-1)[self._pixels]
        kept = valid.of(raw)
        lost = int((~kept).sum())
        signal = np.where(kept, raw, 0).astype(np.float64)
        total = float(signal.sum())
        signal -= self._dark
        for _ in range(self._wanted.cycles):
            mean, spread, count = self._moments(signal, kept)[:3]
            with np.errstate(invalid="ignore"):
                far = np.abs(signal / self._weight - mean[self._bins]) > (self._limit(count) * spread)[self._bins]
            if not (far & kept).any():
                break
            kept &= ~far
        _, _, _, norm, variance = self._moments(signal, kept)
        return FrameSums(self._sum(np.where(kept, signal, 0.0)), variance, norm, total, lost)

    def _limit(self, count: Values) -> Values:
        enough = np.maximum(count, FEWEST)
        return np.asarray(np.maximum(self._wanted.threshold, np.sqrt(2.0 * np.log(enough / np.sqrt(2.0 * np.pi)))))

    def _moments(self, signal: Values, kept: NDArray[np.bool_]) -> tuple[Values, Values, Values, Values, Values]:
        """Return mean, standard deviation, number of pixels, sum of weights, and variance of the summed signal of each bin."""
        weight = np.where(kept, self._weight, 0.0)
        norm, squares, count = self._sum(weight), self._sum(np.square(weight)), self._sum(kept.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._sum(np.where(kept, signal, 0.0)) / norm
            away = np.where(kept, signal - mean[self._bins] * self._weight, 0.0)
            variance = self._sum(np.square(away))
            return mean, np.sqrt(variance / squares), count, norm, variance

    def _sum(self, values: Values) -> Values:
        total = np.zeros(self._count)
        if self._filled.size:
            total[self._filled] = np.add.reduceat(values, self._first[self._filled])
        return total
