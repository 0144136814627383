"""XRF, heavy half: spectra become areas of line groups.

Each detector element is corrected for its dead time, the chosen elements are summed (`elements`), and all spectra of a task are
fitted at once, by the prepared model (`fast_fit`) or by PyMca (`pymca_fit`, the reference). A spectrum without a positive
dead-time factor, or with a channel that is no count, has no value: its rows are NaN, and it is left out of the scan's spectra;
areas without a positive monitor are NaN too. `flags/spectrum` says which. `load` builds what can be built without spectra, so a
process that forks after it has worker processes that start at once; with the fast engine and a warm cache it imports neither
PyMca nor its tables.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.points.columns import flagged, monitor_factor
from cluster_side.modalities.xrf import elements
from cluster_side.modalities.xrf.fast_fit import FastModel, Fit
from cluster_side.modalities.xrf.spec import XrfSettings

Array = NDArray[Any]
Frames = Mapping[str, Array]
Values = NDArray[np.float64]
Spectra = NDArray[np.float32]


def load(settings: XrfSettings, calibration: Mapping[str, pathlib.Path], prepared: Mapping[str, Array]) -> Kernel:
    """Return the array function for these settings and the arrays of `model.prepare`."""
    if settings.engine == "pymca":
        return _pymca(settings, calibration)
    return _fast(settings, FastModel(prepared))


def _fast(settings: XrfSettings, model: FastModel) -> Kernel:
    def kernel(frames: Frames) -> dict[str, Array]:
        model.check(elements.spectra_of(frames, settings).shape[2])
        scan, parts = _ScanSpectra(), list[Fit]()
        live, wrong = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        for block in elements.blocks(frames, settings, model.axis):
            counts = scan.add(block.counts)
            block.variance[np.isnan(block.variance[:, 0])] = 0.0
            parts.append(model.fit(counts[:, model.fitted], block.variance[:, model.fitted]))
            live.append(block.live)
            wrong.append(block.wrong)
        datasets = _datasets(settings, model, (frames, scan, parts), np.concatenate(live))
        return datasets | _flags(frames, settings, scan.known, np.concatenate(wrong))

    return kernel


def _datasets(
    settings: XrfSettings, model: FastModel, found: "tuple[Frames, _ScanSpectra, list[Fit]]", live: NDArray[np.int64]
) -> dict[str, Array]:
    frames, scan, parts = found
    datasets = scan.datasets(energy(*model.axis, scan.channels))
    areas, sigmas = (np.concatenate([getattr(part, name) for part in parts]) for name in ("areas", "sigmas"))
    factor = _monitor(frames, settings, len(areas)) * np.where(scan.known, 1.0, np.nan)
    datasets |= _maps(model.names, areas * factor[:, None], sigmas * factor[:, None])
    for name, fraction in model.mass_fractions(areas * factor[:, None]).items():
        datasets[f"mass_fraction/{_dataset(name)}"] = fraction
    datasets["chi2"] = np.concatenate([part.chi2 for part in parts]) * np.where(scan.known, 1.0, np.nan)
    datasets["live_elements"] = live
    components = model.components(areas)
    datasets["fit/energy"] = datasets["energy"][model.fitted]
    datasets["fit/continuum"] = np.sum([part.continuum for part in parts], axis=0)
    datasets["fit/total"] = np.sum([datasets["fit/continuum"], *components.values()], axis=0)
    datasets["fit/residual"] = datasets["spectrum/sum"][model.fitted] - datasets["fit/total"]
    return datasets | {f"fit/{_dataset(name)}": component for name, component in components.items()}


def _pymca(settings: XrfSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    from cluster_side.modalities.xrf import model, pymca_file

    path = pymca_file.required(calibration)
    config = pymca_file.read(path)
    fit = model.built(config, settings.weight, path)
    axis = float(config["detector"].get("zero", 0.0)), float(config["detector"]["gain"])

    def kernel(frames: Frames) -> dict[str, Array]:
        pymca_file.check_channels(config, elements.spectra_of(frames, settings).shape[2])
        scan, wrong, parts = _ScanSpectra(), list[NDArray[np.int64]](), list[Values]()
        for block in elements.blocks(frames, settings, axis):
            parts.append(scan.add(block.counts).astype(np.float64))
            wrong.append(block.wrong)
        spectra, flags = np.concatenate(parts), _flags(frames, settings, scan.known, np.concatenate(wrong))
        areas, sigmas = fit.fit(spectra, settings.refit)
        factor = _monitor(frames, settings, len(spectra)) * np.where(scan.known, 1.0, np.nan)
        datasets = scan.datasets(energy(*axis, scan.channels)) | flags
        return datasets | _maps(fit.names, (areas * factor).T, (sigmas * factor).T)

    return kernel


class _ScanSpectra:
    """Sums over all spectra of a task, collected block by block."""

    def __init__(self) -> None:
        self._totals: list[Values] = []
        self._sum: Values | None = None
        self._max: Spectra | None = None

    def add(self, counts: Spectra) -> Spectra:
        """Take in spectra and return them, those that are not known as zeros."""
        if self._sum is None or self._max is None:
            self._sum, self._max = np.zeros(counts.shape[1]), np.zeros(counts.shape[1], np.float32)
        library, totals = native.library(), np.empty(len(counts))
        if library is None:
            _collect(counts, (self._sum, self._max, totals))
        else:
            library.collect(*native.pointers(counts, self._sum, self._max, totals), *map(native.size, counts.shape))
        self._totals.append(totals)
        return counts

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which spectra are known."""
        return np.isfinite(np.concatenate(self._totals))

    @property
    def channels(self) -> int:
        """Channels of a spectrum."""
        assert self._sum is not None
        return len(self._sum)

    def datasets(self, energies: Values) -> dict[str, Array]:
        """Return sum, maximum, the energy of each channel, and the counts of each spectrum."""
        assert self._sum is not None
        assert self._max is not None
        return {
            "spectrum/sum": self._sum,
            "spectrum/max": self._max.astype(np.float64),
            "energy": energies,
            "total_counts": np.concatenate(self._totals),
        }


def _collect(counts: Spectra, sums: tuple[Values, Spectra, Values]) -> None:
    """Take spectra into sum and maximum, and write their totals; in NumPy, the same as `collect` of xrf_spectra.c."""
    total, most, totals = sums
    known = np.isfinite(counts[:, 0])
    counts[~known] = 0.0
    totals[:] = np.where(known, counts.sum(axis=1, dtype=np.float64), np.nan)
    total += counts.sum(axis=0, dtype=np.float64)
    np.maximum(most, counts.max(axis=0), out=most)


def energy(zero: float, gain: float, channels: int) -> Values:
    """Return zero + gain x channel in keV."""
    return np.asarray(zero + gain * np.arange(channels), float)


def _monitor(frames: Frames, settings: XrfSettings, length: int) -> Values:
    return monitor_factor(frames, settings.normalise_to, settings.normalise_reference, length)


def _flags(frames: Frames, settings: XrfSettings, known: NDArray[np.bool_], wrong: NDArray[np.int64]) -> dict[str, Array]:
    """Return why spectra have no value."""
    monitor = np.isnan(_monitor(frames, settings, len(known)))
    return {"flags/spectrum": flagged(len(known), {0: ~known & (wrong == 0), 1: wrong > 0, 2: monitor})}


def _maps(names: tuple[str, ...], areas: Values, sigmas: Values) -> dict[str, Array]:
    """Return areas and uncertainties (spectrum, line group) as one dataset each."""
    found: dict[str, Array] = {}
    for at, name in enumerate(names):
        found[f"area/{_dataset(name)}"] = np.ascontiguousarray(areas[:, at])
        found[f"sigma/{_dataset(name)}"] = np.ascontiguousarray(sigmas[:, at])
    return found


def _dataset(name: str) -> str:
    return name.replace(" ", "_")
