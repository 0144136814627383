"""The fast engine: all spectra of a task against one prepared model, without PyMca.

A spectrum loses its background (SNIP, from the spectrum itself) and is fitted by `linear_fit`. Weights are frozen by the prepare
step, so a spectrum's result depends on that spectrum alone, whatever task it comes in.

Uncertainty: that of the estimate without bounds, also where an area is at its bound 0: then it says how small an area could have
been seen. The noise of the background estimate is not included. chi2 is divided by the degrees of freedom.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.xrf import snip
from cluster_side.modalities.xrf.linear_fit import TAIL, LinearFit, trimmed

Values = NDArray[np.float64]
Spectra = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of fitting some spectra."""

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
        self.templates: Values = trimmed(prepared["templates"], TAIL)
        self._continuum, self._width, self._cuts = facts["continuum"], facts["snip"], prepared["cuts"]
        free = np.arange(self.templates.shape[1]) < self._continuum
        self._linear = LinearFit(self.templates, prepared["weights"], free)
        self._room = np.empty((0, len(self.templates)), dtype=np.float32)

    def fit(self, counts: Spectra, variance: Spectra) -> Fit:
        """Fit spectra (spectrum, channel), cut to the fit limits, with the variance of each count."""
        net, continuum = counts, np.zeros(counts.shape[1])
        if self._width:
            net = self._room_for(len(counts))
            continuum = snip.subtract(counts, net, self._width, self._cuts)
        found, variances, chi2 = self._linear.fit(net, variance)
        lines, terms = slice(self._continuum, None), slice(self._continuum)
        if self._continuum:
            continuum = continuum + self.templates[:, terms] @ found[:, terms].sum(axis=0)
        return Fit(
            areas=found[:, lines],
            sigmas=np.sqrt(variances[:, lines]),
            chi2=chi2 / (net.shape[1] - found.shape[1]),
            continuum=continuum,
        )

    def _room_for(self, count: int) -> Spectra:
        """Return room for so many spectra; fresh memory for each block costs page faults."""
        if len(self._room) < count:
            self._room = np.empty((count, len(self.templates)), dtype=np.float32)
        return self._room[:count]

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
