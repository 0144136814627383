"""PyMca's fast linear fit, with its model kept between calls.

PyMca builds configuration and model matrix anew for every batch (0.3 s), although neither depends on the spectra. `KeptFit`
builds them once per range of channels; everything that looks at spectra (background, solution, refit) is PyMca's own code.
Element tables print to the console while they load, so standard output is closed meanwhile.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

Model = tuple[NDArray[Any], list[str], int, int]
"""Derivatives (channel, parameter), names, number of parameters, how many of them are continuum."""


@contextmanager
def silent() -> Iterator[None]:
    """Send what compiled code writes to standard output nowhere."""
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
        self._models: dict[tuple[int, int, str], Model] = {}
        self.names: tuple[str, ...] = ()
        """The line groups of the latest fit."""

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
        channels = np.ravel(self._mcaTheory.xdata)
        key = (int(channels[0]), int(channels[-1]), np.dtype(dtype).str)
        if key not in self._models:
            with silent():
                self._models[key] = super()._fitCreateModel(dtype=dtype)
        model = self._models[key]
        self.names = tuple(model[1][model[3] :])
        return model
