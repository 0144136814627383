"""The fast engine: all spectra of a task against one prepared model, without PyMca.

For a spectrum y with background b (SNIP, from the spectrum itself): areas x minimise sum_i w_i (y_i - b_i - (A x)_i)^2 with
areas >= 0 and continuum terms free, by `nnls`. Weights w are frozen by the prepare step, so a spectrum's result depends on that
spectrum alone, whatever task it comes in.

Uncertainty: the unconstrained estimate is linear in y, x = S (y - b) with S = (A'WA)^-1 A'W, so the counts' variances v give
sigma_j^2 = sum_i S_ji^2 v_i. The same is reported where an area is at its bound 0: then it is what could have been detected.
The noise of the background estimate is left out. chi2 = sum_i (y - b - A x)_i^2 / max(v_i, 1), divided by the degrees of
freedom. Sigma and chi2 are computed in single precision.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import native
from cluster_side.modalities.xrf import nnls, snip

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """What the fit of some spectra found."""

    areas: Values
    """(spectrum, line group) in counts."""
    sigmas: Values
    chi2: Values
    """Per spectrum, per degree of freedom."""
    continuum: Values
    """(channel) SNIP and continuum terms, summed over the spectra."""


class FastModel:
    """A prepared model, ready to fit."""

    def __init__(self, prepared: Mapping[str, NDArray[Any]]) -> None:
        facts = json.loads(bytes(prepared["facts"]))
        self.names: tuple[str, ...] = tuple(facts["names"])
        self.axis: tuple[float, float] = facts["zero"], facts["gain"]
        self.fitted = slice(facts["low"], facts["high"])
        self.reference: int | None = facts["reference"]
        self.fractions: Values = prepared["fractions"]
        self.templates: Values = np.asarray(prepared["templates"])
        self._continuum, self._width, self._cuts = facts["continuum"], facts["snip"], prepared["cuts"]
        self._weighted = np.ascontiguousarray(self.templates * prepared["weights"][:, None])
        self._gram = self.templates.T @ self._weighted
        self._free = np.arange(len(self._gram)) < self._continuum
        self._squares = np.ascontiguousarray(np.square(np.linalg.solve(self._gram, self._weighted.T)).T.astype(np.float32))
        self._shapes = np.ascontiguousarray(self.templates.T.astype(np.float32))
        self._room = np.empty((0, len(self.templates))), np.empty((0, len(self.templates)), dtype=np.float32)

    def fit(self, counts: Values, variance: Values) -> Fit:
        """Fit spectra (spectrum, channel), cut to the fit limits, with the variance of each count."""
        net, single = self._buffers(len(counts))
        if self._width:
            continuum = snip.subtract(counts, net, self._width, self._cuts)
        else:
            net[:], continuum = counts, np.zeros(counts.shape[1])
        found = nnls.solve(self._gram, net @ self._weighted, self._free)
        single[:] = variance
        sigmas = np.sqrt(single @ self._squares).astype(np.float64)
        lines = slice(self._continuum, None)
        return Fit(
            areas=found[:, lines],
            sigmas=sigmas[:, lines],
            chi2=chi_square(net, found.astype(np.float32) @ self._shapes, single) / (net.shape[1] - len(self._gram)),
            continuum=continuum + self.templates[:, : self._continuum] @ found[:, : self._continuum].sum(axis=0),
        )

    def _buffers(self, count: int) -> tuple[Values, NDArray[np.float32]]:
        """Return room for so many spectra, in double and single precision; fresh memory for each block costs page faults."""
        if len(self._room[0]) < count:
            self._room = np.empty((count, len(self.templates))), np.empty((count, len(self.templates)), dtype=np.float32)
        return self._room[0][:count], self._room[1][:count]

    def components(self, areas: Values) -> dict[str, Values]:
        """Return what each line group adds to the sum spectrum, given its areas (spectrum, line group)."""
        totals = areas.sum(axis=0)
        return {name: self.templates[:, self._continuum + at] * totals[at] for at, name in enumerate(self.names)}

    def mass_fractions(self, areas: Values) -> dict[str, Values]:
        """Return the mass fraction of each line group that has one; NaN where the reference was not found."""
        if not self.fractions.size:
            return {}
        if self.reference is not None:
            reference = areas[:, self.reference, None]
            areas = np.divide(areas, reference, out=np.full_like(areas, np.nan), where=reference > 0)
        known = np.flatnonzero(np.isfinite(self.fractions))
        return {self.names[at]: areas[:, at] * self.fractions[at] for at in known}

    def check(self, channels: int) -> None:
        """Raise BadInput when the fit limits lie outside of the spectra."""
        if self.fitted.stop > channels:
            raise BadInput(
                f"the fit limits xmin {self.fitted.start}, xmax {self.fitted.stop - 1} of the PyMca configuration do not fit "
                f"spectra of {channels} channels; use the configuration of this detector"
            )


def chi_square(net: Values, model: NDArray[np.float32], variance: NDArray[np.float32]) -> Values:
    """Return the squared residuals of each spectrum in units of their variance, which counts as at least 1."""
    library = native.library()
    if library is None:
        return np.asarray((np.square(net - model) / np.maximum(variance, 1.0)).sum(axis=1))
    result = np.empty(len(net))
    arrays: list[NDArray[Any]] = [net, model, variance, result]
    library.chi_square(*map(native.pointer, arrays), *map(native.size, net.shape))
    return result
