"""PyMca's fast linear fit, with its model kept between calls.

PyMca builds configuration and model matrix for every batch (0.3 s), although neither depends on the spectra. `KeptFit`
builds them once per range of channels; everything that needs spectra (background, solution, refit) is PyMca's own code. PyMca
prints to the console while it loads its element tables, so standard output is closed meanwhile.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

from beamtide.errors import BadInput

Model = tuple[NDArray[Any], list[str], int, int]
"""Derivatives (channel, parameter), names, number of parameters, how many of them are continuum."""


@contextmanager
def silent() -> Iterator[None]:
    """Discard what compiled code writes to standard output."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class KeptFit(FastXRFLinearFit):  # type: ignore[misc]  # PyMca has no types
    """The fast fit of one configuration and weight."""

    def __init__(self, config: Mapping[str, Any], weight: int) -> None:
        with silent():
            super().__init__()
            self.setFitConfiguration(config)
        self._weight = weight
        self._configured: tuple[Any, ...] | None = None
        self._models: dict[tuple[int, int], Model] = {}
        self.names: tuple[str, ...] = ()
        """The line groups of the latest fit."""
        self.concerning: Mapping[str, Any] = config

    @property
    def model(self) -> Model:
        """The model of the latest fit."""
        return self._models[self._range()]

    @property
    def channels(self) -> NDArray[Any]:
        """The channels of the latest fit."""
        return np.ravel(self._mcaTheory.xdata)

    @property
    def anchors(self) -> list[int]:
        """The first channels, counted from the lower fit limit, of the later parts of the SNIP background."""
        found = self._fitBkgAnchorList(config=self.concerning) or []
        return sorted({int(anchor) for anchor in found if 0 < anchor < len(self.channels)})

    def mass_fractions(self, path: pathlib.Path, spectrum: NDArray[Any] | None) -> tuple[NDArray[np.float64], int | None]:
        """Return the mass fraction of one count of each line group (NaN: none), and the group they are relative to.

        Without a group they are to be multiplied by the area (fundamental parameters), with one by area / area of that group.
        PyMca's `ConcentrationsTool` computes both. BadInput if the configuration does not allow it.
        """
        _, config, *_ = self._fitConfigure()
        relative = bool(config["concentrations"]["usematrix"])
        if relative and str(config["concentrations"]["reference"]).upper() == "AUTO":
            if spectrum is None:
                raise BadInput(f"{path}: [concentrations] reference is auto; name an element, or add calibration.spectrum")
            self._mcaTheory.setData(y=spectrum, xmin=config["fit"]["xmin"], xmax=config["fit"]["xmax"])
        try:
            with silent():
                labels, values = self._fitDeriveMassFractions(
                    config=config, results=np.ones((self.model[2], 1)), nFreeBkg=self.model[3], autotime=0, liveTimeFactor=1.0
                )
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(f"{path}: PyMca cannot compute mass fractions ({reason}); check [concentrations] in PyMca") from error
        found = {label: value[0] for label, value in zip(labels, values, strict=False) if isinstance(label, str)}
        factors = np.array([found.get(name, np.nan) for name in self.names])
        return factors, self._reference(config) if relative else None

    def _reference(self, config: Mapping[str, Any]) -> int:
        element = str(config["concentrations"]["reference"]).split()[0]
        return next(at for at, name in enumerate(self.names) if name.split()[0] == element)

    def fit(self, spectra: NDArray[Any], refit: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return areas and uncertainties (line group, spectrum) of one batch of spectra."""
        found = self.fitMultipleSpectra(y=spectra, weight=self._weight, refit=refit, save=False)
        return found["parameters"][-len(self.names) :], found["uncertainties"][-len(self.names) :]

    def _fitConfigure(self, **arguments: Any) -> tuple[Any, ...]:  # noqa: N802  # PyMca's name
        if self._configured is None:
            with silent():
                self._configured = super()._fitConfigure(**arguments)
        return self._configured

    def _fitCreateModel(self, dtype: Any = None) -> Model:  # noqa: N802  # PyMca's name
        if self._range() not in self._models:
            with silent():
                self._models[self._range()] = super()._fitCreateModel(dtype=dtype)
        self.names = tuple(self.model[1][self.model[3] :])
        return self.model

    def _range(self) -> tuple[int, int]:
        return int(self.channels[0]), int(self.channels[-1])
