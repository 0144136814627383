"""XRF, heavy half: spectra become areas of line groups.

Each detector element is corrected for its dead time, the chosen elements are summed in float64, and all spectra of a task are
fitted in one call. A spectrum without a positive dead-time factor has no value: its rows are NaN, and it is left out of the
scan's spectra; areas without a positive monitor are NaN too. `load` builds the model, so a process that forks after it has
children that start at once.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.xrf import pymca_file
from cluster_side.modalities.xrf.pymca_fit import KeptFit
from cluster_side.modalities.xrf.spec import XrfSettings

Frames = Mapping[str, NDArray[Any]]
Values = NDArray[np.float64]


def load(settings: XrfSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings and this PyMca configuration."""
    if "cfg" not in calibration:
        raise BadInput("calibration.cfg is missing: name the PyMca configuration (.cfg) to fit with")
    config = pymca_file.read(calibration["cfg"])
    fit = _ready_fit(config, settings, calibration["cfg"])

    def kernel(frames: Frames) -> dict[str, NDArray[Any]]:
        spectra = summed(frames, settings)
        pymca_file.check_channels(config, spectra.shape[1])
        known = np.isfinite(spectra[:, 0])
        spectra[~known] = 0.0
        datasets = scan_spectra(spectra, config)
        areas, sigmas = fit.fit(spectra, settings.refit)
        factor = monitor_factor(frames, settings, len(spectra)) * np.where(known, 1.0, np.nan)
        datasets["total_counts"] = np.where(known, spectra.sum(axis=1), np.nan)
        for name, area, sigma in zip(fit.names, areas, sigmas, strict=True):
            datasets[f"area/{name.replace(' ', '_')}"] = area * factor
            datasets[f"sigma/{name.replace(' ', '_')}"] = sigma * factor
        return datasets

    return kernel


def summed(frames: Frames, settings: XrfSettings) -> Values:
    """Return the sum of the chosen detector elements, each times its dead-time factor; a row without one is NaN."""
    spectra = _spectra(frames)
    factors = _factors(frames, spectra.shape[:2]) if settings.dead_time else np.ones(spectra.shape[:2])
    elements = range(spectra.shape[1]) if settings.detectors == "all" else settings.detectors
    if max(elements) >= spectra.shape[1]:
        raise BadInput(f"detectors: there is no element {max(elements)}; this detector has 0 to {spectra.shape[1] - 1}")
    total = np.zeros((spectra.shape[0], spectra.shape[2]))
    for element in elements:
        total += spectra[:, element] * factors[:, element, None]
    return total


def scan_spectra(spectra: Values, config: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return what describes all spectra together: sum, maximum, and the energy of each channel."""
    return {
        "spectrum/sum": spectra.sum(axis=0),
        "spectrum/max": spectra.max(axis=0),
        "energy": energy(config["detector"], spectra.shape[1]),
    }


def energy(detector: Mapping[str, Any], channels: int) -> Values:
    """Return zero + gain x channel in keV."""
    return np.asarray(detector.get("zero", 0.0) + detector["gain"] * np.arange(channels), float)


def monitor_factor(frames: Frames, settings: XrfSettings, length: int) -> Values:
    """Return reference / monitor; NaN where the monitor is not a positive number."""
    if settings.normalise_to is None or settings.normalise_reference is None:
        return np.ones(length)
    if settings.normalise_to not in frames:
        raise BadInput(f"normalise_to: the task has no {settings.normalise_to!r}; name it in the pipeline's inputs")
    monitor = np.asarray(frames[settings.normalise_to], float)
    return np.asarray(np.divide(settings.normalise_reference, monitor, out=np.full(length, np.nan), where=monitor > 0))


def _ready_fit(config: Mapping[str, Any], settings: XrfSettings, path: pathlib.Path) -> KeptFit:
    try:
        fit = KeptFit(config, settings.weight)
        fit.fit(np.zeros((1, int(config["fit"]["xmax"]) + 1)), settings.refit)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path}: PyMca cannot build a model of this configuration ({reason}); open it in PyMca") from error
    return fit


def _spectra(frames: Frames) -> NDArray[Any]:
    if "spectra" not in frames:
        raise BadInput(
            f"the frames have no array 'spectra', only {', '.join(sorted(frames)) or 'nothing'}; correct source.options"
        )
    spectra = frames["spectra"]
    if spectra.ndim == 2:
        spectra = spectra[:, None, :]
    if spectra.ndim != 3 or not spectra.size:
        raise BadInput(f"'spectra' has shape {spectra.shape}; expected (exposure, detector, channel)")
    return spectra


def _factors(frames: Frames, shape: tuple[int, ...]) -> Values:
    if "dead_time_factor" not in frames:
        raise BadInput("the frames have no 'dead_time_factor'; add it to source.options, or set dead_time: false")
    factors = np.asarray(frames["dead_time_factor"], float)
    factors = factors[:, None] if factors.ndim == 1 else factors
    if factors.shape != shape:
        raise BadInput(f"'dead_time_factor' has shape {factors.shape}, expected (exposure, detector) = {shape}")
    return np.where(np.isfinite(factors) & (factors > 0), factors, np.nan)
