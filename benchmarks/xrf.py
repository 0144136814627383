"""XRF: spectra per second on one core, ours and PyMca's fast fit, with and without SNIP; setup excluded on both.

The spectra are the measured NanoMAX map (1111 spectra, three times over) where the folder of measured data is
(BEAMTIDE_TEST_DATA), else made-up ones from the demo's configuration. Both start from the same spectra in memory, summed over
the detector, in single precision, and cut them to the fit limits. Ours also computes an uncertainty and chi2 for each spectrum;
PyMca's fast fit does not (its uncertainties are those of the model, the same for all), so `areas` is the same race without them.
Floor: the dense matrix product of all templates. Seconds are of CPU time, so that others on the machine matter less.
"""

import os
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

from beamline_side.simulation import beamline
from beamtide import clock, registry
from benchmarks.measure import Beside, Book, private_peaks, scratch
from cluster_side.modalities.xrf import elements, model, pymca_file
from cluster_side.modalities.xrf.fast_fit import FastModel
from cluster_side.modalities.xrf.pymca_fit import silent
from cluster_side.modalities.xrf.spec import XrfSettings
from cluster_side.worker.task.prepared_arrays import keeper
from tests.xrf_spectra import summed

ROUNDS, COPIES, REPEATS = 9, 3, 4
Spectra = NDArray[np.float32]
DATA = pathlib.Path(os.environ.get("BEAMTIDE_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))

FILE, CFG = DATA / "xrf" / "nanomax_scan_000008_xspress3.hdf5", "nanomax_fit_12keV.cfg"


def run(book: Book) -> None:
    """Measure with and without SNIP."""
    cfg, spectra, source = _measured() if (DATA / "xrf").is_dir() else _made_up()
    with scratch() as folder:
        plain = pathlib.Path(folder) / "plain.cfg"
        plain.write_text(cfg.read_text().replace("stripflag = 1", "stripflag = 0"))
        _compare(book, "snip", cfg, (spectra, source))
        _compare(book, "nosnip", plain, (spectra, source))
        _whole_task(book, cfg, spectra, pathlib.Path(folder))
        if FILE.is_file():
            _memory(book, pathlib.Path(folder))


def _compare(book: Book, name: str, cfg: pathlib.Path, given: tuple[Spectra, str]) -> None:
    spectra, source = given
    ours = FastModel(model.prepare(XrfSettings(), {"cfg": cfg}))
    rates = _raced(_tasks(ours, cfg, spectra), len(spectra))
    notes = {"spectra": len(spectra), "channels": spectra.shape[1], "templates": ours.templates.shape[1], "source": source}
    beside = Beside("PyMca FastXRFLinearFit, model kept", rates["peer"]), Beside("the matrix product alone", rates["floor"])
    metric = f"spectra_per_s_1core_{name}"
    book.row(metric, rates["ours"], "1/s", "higher", peer=beside[0], floor=beside[1], notes=notes)
    book.row(f"speedup_{name}_weighted", _ratios(rates, "weighted peer"), "x", "higher", notes={"beside": "PyMca with weight 1"})
    if name == "nosnip":
        rows = _ratios(rates, "peer", "areas")
        book.row("speedup_nosnip_areas", rows, "x", "higher", notes={"beside": "without sigma and chi2, which PyMca has not"})
    best = {"speedup_best_of_rounds": round(max(rates["ours"]) / max(rates["peer"]), 2)}
    book.row(f"speedup_{name}", _ratios(rates, "peer"), "x", "higher", notes=best)


def _tasks(ours: FastModel, cfg: pathlib.Path, spectra: Spectra) -> dict[str, Callable[[], object]]:
    """Return who races: ours with everything, ours with areas alone, PyMca, PyMca with weights, and the floor."""
    peers = [model.built(pymca_file.read(cfg), weight, cfg) for weight in (0, 1)]
    cut, templates = spectra[:, ours.fitted].astype(np.float64), np.ascontiguousarray(ours.templates)
    return {
        "ours": lambda: [ours.fit(block, block) for block in _blocks(ours, spectra)],
        "areas": lambda: [ours._linear.parameters(block) for block in _blocks(ours, spectra)],  # noqa: SLF001
        "peer": lambda: peers[0].fit(spectra, refit=True),
        "weighted peer": lambda: peers[1].fit(spectra, refit=True),
        "floor": lambda: cut @ templates,
    }


def _blocks(ours: FastModel, spectra: Spectra) -> Iterator[Spectra]:
    """Yield spectra, cut to the fit limits, as many at once as a worker takes."""
    for start in range(0, len(spectra), elements.BLOCK):
        yield spectra[start : start + elements.BLOCK, ours.fitted]


def _raced(tasks: dict[str, Callable[[], object]], spectra: int) -> dict[str, list[float]]:
    """Return spectra per second of each, one after the other in every round; the first round warms up."""
    rates: dict[str, list[float]] = {who: [] for who in tasks}
    for number in range(ROUNDS + 1):
        for who, task in tasks.items():
            began = time.process_time()
            for _ in range(REPEATS):
                task()
            if number:
                rates[who].append(REPEATS * spectra / (time.process_time() - began))
    return rates


def _ratios(rates: dict[str, list[float]], peer: str, ours: str = "ours") -> list[float]:
    return [one / other for one, other in zip(rates[ours], rates[peer], strict=True)]


def _whole_task(book: Book, cfg: pathlib.Path, spectra: Spectra, folder: pathlib.Path) -> None:
    """What a worker pays for one task of 1,000 spectra, models and all: ours kept by an earlier worker, PyMca's made anew."""
    keep, some = keeper(folder, "xrf"), spectra[:1000]
    keep(lambda: model.prepare(XrfSettings(), {"cfg": cfg}))

    def ours() -> None:
        fit = FastModel(keep(lambda: model.prepare(XrfSettings(), {"cfg": cfg})))
        for block in _blocks(fit, some):
            fit.fit(block, block)

    def stock() -> None:
        with silent():
            fit = FastXRFLinearFit()
            fit.setFitConfigurationFile(str(cfg))
            fit.fitMultipleSpectra(y=some, weight=0, refit=True, save=False)

    taken: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(ROUNDS):
        for who, task in (("ours", ours), ("peer", stock)):
            began = clock.monotonic()
            task()
            taken[who].append(1e3 * (clock.monotonic() - began))
    book.row(
        "task_of_1000_spectra_ms", taken["ours"], "ms", "lower", peer=Beside("FastXRFLinearFit with its setup", taken["peer"])
    )


def _memory(book: Book, folder: pathlib.Path) -> None:
    """What a worker has for itself while it reads and fits 1,000 measured spectra of four detector elements."""
    known = registry.find("formats", "nanomax_xspress3")
    kernel = registry.find("modalities", "xrf").load({"dead_time": False}, {"cfg": DATA / "xrf" / CFG}, keeper(folder, "xrf"))
    kernel(known.read(FILE, 0, 10, {}))
    taken = private_peaks(lambda: kernel(known.read(FILE, 0, 1000, {})))
    book.row("worker_memory_1000_spectra_mb", taken, "MB", "lower", notes={"bar": 150, "channels": 4096, "elements": 4})


def _measured() -> tuple[pathlib.Path, Spectra, str]:
    frames = registry.find("formats", "nanomax_xspress3").read(FILE, 0, 1111, {})
    spectra = summed(frames, XrfSettings(detectors=[3], dead_time=False))
    return DATA / "xrf" / CFG, np.concatenate([spectra] * COPIES), "NanoMAX scan 8"


def _made_up() -> tuple[pathlib.Path, Spectra, str]:
    cfg = pathlib.Path(beamline.__file__).parent / "demo" / "sample.cfg"
    fit, rng = FastModel(model.prepare(XrfSettings(), {"cfg": cfg})), np.random.default_rng(0)
    areas = rng.exponential(300.0, (1111 * COPIES, len(fit.names))) * (rng.random(len(fit.names)) < 0.6)
    spectra = np.zeros((len(areas), 2048), np.float32)
    spectra[:, fit.fitted] = rng.poisson(areas @ fit.templates.T + 3.0)
    return cfg, spectra, "made up"
