"""X-ray fluorescence with PyMca's own fast linear fit (V.A. Solé et al., Spectrochim. Acta B 62 (2007) 63): the reference engine.

Dead time first, element by element; then the sum over elements; then one linear fit of all spectra of a task, with the model of
the user's unchanged configuration. The model is built once, when the kernel is loaded; a forked worker inherits it.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PyMca5.PyMcaIO.ConfigDict import ConfigDict
from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

from beamtide.errors import BadInput
from beamtide.machine import Arrays
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.xrf.spec import Settings

SNIP = 1
HIGHEST_ENERGY = 200.0


def corrected_sum(spectra: NDArray[Any], factors: NDArray[Any] | None) -> NDArray[np.float32]:
    """Return sum_d f_d · Y_d over detector elements: (n, elements, channels), (n, elements) -> (n, channels)."""
    if factors is None:
        total = spectra.sum(axis=1, dtype=np.float64)
    else:
        total = np.einsum("nd,ndc->nc", factors.astype(np.float64), spectra)
    return np.asarray(total, np.float32)


def energies(configuration: Mapping[str, Any], channels: int) -> NDArray[np.float64]:
    """Return zero + gain · channel in keV."""
    detector = configuration["detector"]
    return float(detector["zero"]) + float(detector["gain"]) * np.arange(channels, dtype=np.float64)


def dataset_name(line_group: str) -> str:
    """Return "Fe_K" for PyMca's "Fe K"."""
    return line_group.strip().replace(" ", "_").replace("/", "-")


def load(settings: Settings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Build the model of calibration file "cfg" and return the kernel. BadInput says what the configuration lacks."""
    if "cfg" not in calibration:
        raise BadInput("xrf: calibration.cfg is required: the configuration file that you made in PyMca")
    configuration = read_configuration(calibration["cfg"])
    with _silence():
        fit = FastXRFLinearFit()
        fit.setFitConfiguration(configuration)
        _fit(fit, np.ones((1, int(configuration["fit"]["xmax"]) + 1), np.float32), settings)

    def process(frames: Arrays) -> Arrays:
        spectra = summed(frames, settings)
        if spectra.shape[1] <= int(configuration["fit"]["xmin"]):
            raise BadInput(f"xrf: spectra have {spectra.shape[1]} channels, the cfg fits from {configuration['fit']['xmin']}")
        with _silence():
            names, areas, sigmas = _fit(fit, spectra, settings)
        scale = _normalisation(frames, settings, len(spectra))
        found: dict[str, NDArray[Any]] = {}
        for name, area, sigma in zip(names, areas, sigmas, strict=True):
            found[f"area/{dataset_name(name)}"] = np.asarray(area, np.float32) * scale
            found[f"sigma/{dataset_name(name)}"] = np.asarray(sigma, np.float32) * scale
        found["total_counts"] = spectra.sum(axis=1, dtype=np.float64)
        found["spectrum/sum"] = spectra.sum(axis=0, dtype=np.float64)
        found["spectrum/max"] = spectra.max(axis=0)
        found["spectrum/energy"] = energies(configuration, spectra.shape[1])
        return found

    return process


def read_configuration(path: pathlib.Path) -> dict[str, Any]:
    """Read a PyMca configuration and make it linear in memory. BadInput says what cannot be used, and what to do in PyMca."""
    configuration: dict[str, Any] = ConfigDict()
    try:
        configuration.read(str(path))  # type: ignore[attr-defined]
    except Exception as error:  # PyMca raises what its parser raises
        raise BadInput(f"xrf: {path.name} is not a PyMca configuration: {' '.join(str(error).split())[:200]}") from error
    fit = configuration.get("fit", {})
    if not any(configuration.get("peaks", {}).values()):
        raise BadInput("xrf: the cfg has no peaks: choose elements and lines in PyMca, under Peaks, and save it again")
    energy = _first_number(fit.get("energy"))
    if energy is None:
        raise BadInput("xrf: the cfg has no beam energy: enter it in PyMca, under Beam (in keV), and save it again")
    if energy > HIGHEST_ENERGY:
        raise BadInput(f"xrf: the cfg's beam energy is {energy:g} keV; was it entered in eV?")
    if fit.get("strategyflag"):
        raise BadInput("xrf: the cfg uses a fit strategy, which a fast fit cannot follow: switch it off in PyMca, under Fit")
    if fit.get("stripflag") and fit.get("stripalgorithm") != SNIP:
        raise BadInput("xrf: the cfg's background is not SNIP, which the fast fit needs: choose SNIP in PyMca, under Fit")
    if not 0 <= int(fit["xmin"]) < int(fit["xmax"]):
        raise BadInput(f"xrf: the cfg fits channels {fit['xmin']} to {fit['xmax']}, which is no range")
    fit["linearfitflag"] = 1
    return configuration


def summed(frames: Arrays, settings: Settings) -> NDArray[np.float32]:
    """Return the spectra (n, channels) of a task: the chosen elements, corrected for dead time, summed."""
    spectra, factors = frames["spectra"], frames.get("dead_time_factor") if settings.dead_time else None
    if spectra.ndim == 2:
        spectra, factors = spectra[:, None, :], None if factors is None else factors.reshape(len(spectra), 1)
    if settings.detectors != "all":
        chosen = list(settings.detectors)
        if chosen and max(chosen) >= spectra.shape[1]:
            raise BadInput(f"xrf: detectors {chosen} asked for, the files have {spectra.shape[1]} (counted from 0)")
        spectra, factors = spectra[:, chosen], None if factors is None else factors[:, chosen]
    if factors is not None and factors.shape != spectra.shape[:2]:
        raise BadInput(f"xrf: dead-time factors have shape {factors.shape}, spectra {spectra.shape}: they do not fit together")
    return corrected_sum(spectra, factors)


def _fit(fit: FastXRFLinearFit, spectra: NDArray[np.float32], settings: Settings) -> tuple[list[str], Any, Any]:
    result = fit.fitMultipleSpectra(y=spectra, weight=settings.weight, refit=int(settings.refit), concentrations=0)
    groups = result.labels("parameters")
    return groups, result["parameters"], result["uncertainties"]


def _normalisation(frames: Arrays, settings: Settings, length: int) -> NDArray[np.float32]:
    if not settings.normalise_to:
        return np.ones(length, np.float32)
    if settings.normalise_to not in frames:
        raise BadInput(f"xrf: normalise_to: {settings.normalise_to} is not among the pipeline's inputs; add it to `inputs`")
    value = frames[settings.normalise_to].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(value > 0, settings.normalise_reference / value, np.nan).astype(np.float32)


def _first_number(energy: Any) -> float | None:
    first = energy[0] if isinstance(energy, list) and energy else energy
    try:
        return float(first)
    except (TypeError, ValueError):
        return None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Send what C++ code prints to standard output to /dev/null for a while."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
