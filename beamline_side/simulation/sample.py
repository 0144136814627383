"""A simulated sample, and its spectra.

The spectrum of a point is sum_e a_e(x, y) · t_e + background: t_e is the template of line group e with unit area, from PyMca's
forward model of the demo configuration (lines, ratios, escape, attenuation, detector response), a_e a smooth pattern on the
sample in counts. Detectors see it with Poisson noise and are blind for a part of the time that grows with the rate.
"""

import functools
import os
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

CHANNELS = 2048
ELEMENTS = ("Ca_K", "Ti_K", "Fe_K", "Cu_K", "Zn_K")
SCATTER = {"Scatter_Peak000": 400.0, "Scatter_Compton000": 1500.0}
"""Areas of the elastic and Compton peaks, in counts per point."""
TICKS = 4_000_000
"""Clock ticks of one exposure: 50 ms at 80 MHz."""
BLIND_PER_COUNT = 4.0
"""Clock ticks for which an element is blind after each count (50 ns)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement of a line of points: spectra (point, element, channel), dead ticks (point, element)."""

    spectra: NDArray[np.uint32]
    dead_ticks: NDArray[np.uint32]


@functools.cache
def templates(configuration: pathlib.Path) -> dict[str, NDArray[np.float64]]:
    """Return the template (CHANNELS,) of each line group of a PyMca configuration, in counts per unit of fitted area."""
    try:
        from PyMca5.PyMcaIO.ConfigDict import ConfigDict
        from PyMca5.PyMcaPhysics.xrf.ClassMcaTheory import McaTheory
    except ImportError as error:
        raise BadInput("the simulated sample needs PyMca: pip install 'beamtide[xrf]'") from error
    settings: Any = ConfigDict()
    settings.read(str(configuration))
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # compiled code prints there while it loads its tables
    try:
        theory = McaTheory()
        theory.setConfiguration(settings)
        theory.enableOptimizedLinearFit()
        theory.setData(x=np.arange(CHANNELS), y=np.ones(CHANNELS))
        theory.estimate()
        channels = np.ravel(theory.xdata).astype(int)
        found = {}
        for number, name in enumerate(theory.PARAMETERS[theory.NGLOBAL :], theory.NGLOBAL):
            template = np.zeros(CHANNELS)
            template[channels] = np.ravel(theory.linearMcaTheoryDerivative(theory.parameters, number, theory.xdata))
            found[name.replace(" ", "_")] = template
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
    return found


def areas(shape: tuple[int, int]) -> dict[str, NDArray[np.float64]]:
    """Return the sample: the expected area of each element's lines at each point (slow, fast), in counts."""
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    radius = np.hypot(x, y)
    blob = functools.partial(_blob, x, y)
    return {
        "Ca_K": 200 + 1800 * blob(-0.35, 0.3, 0.35) + 900 * blob(0.5, -0.5, 0.2),
        "Ti_K": 150 + 500 * (1 + np.tanh(6 * (x + y))) / 2,
        "Fe_K": 300 + 2500 * np.exp(-(((radius - 0.65) / 0.12) ** 2)),
        "Cu_K": 250 + 1500 * (np.cos(4 * np.pi * x) > 0.2) * (np.abs(y) < 0.8),
        "Zn_K": 200 + 1200 * (np.abs(x - 0.4 * y) < 0.15),
    }


def expected(sample: dict[str, NDArray[np.float64]], shapes: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean spectra (…, channel) of points with these areas, before any detector sees them."""
    channels = np.arange(CHANNELS)
    background = 3.0 * np.exp(-(((channels - 900) / 700.0) ** 2)) * (channels > 60)
    total = sum(np.multiply.outer(sample[name], shapes[name]) for name in ELEMENTS)
    return np.asarray(total + background + sum(area * shapes[name] for name, area in SCATTER.items()))


def measure(mean: NDArray[np.float64], shares: tuple[float, ...], random: np.random.Generator) -> Measured:
    """Return what detector elements that catch `shares` of the photons count in one exposure of each point."""
    each = mean[:, None, :] * np.asarray(shares)[:, None]
    live = 1.0 / (1.0 + each.sum(axis=2) * BLIND_PER_COUNT / TICKS + 0.02)
    spectra = random.poisson(each * live[..., None]).astype(np.uint32)
    return Measured(spectra, np.rint(TICKS * (1.0 - live)).astype(np.uint32))


def _blob(x: NDArray[np.float64], y: NDArray[np.float64], x0: float, y0: float, width: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-(((x - x0) ** 2 + (y - y0) ** 2) / width**2)))
