"""Explains a PyMca configuration, for `beamtide settings check xrf`."""

import configparser
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PyMca5.PyMcaIO.ConfigDict import ConfigDict

from beamtide.errors import BadInput
from cluster_side.modalities import drawing
from cluster_side.modalities.base import Explanation
from cluster_side.modalities.xrf import model, pymca_file, reference_spectrum
from cluster_side.modalities.xrf.fast_fit import FastModel
from cluster_side.modalities.xrf.kernel import energy
from cluster_side.modalities.xrf.spec import XrfSettings

CONTINUA = {0: "none", 1: "constant", 2: "straight line", 3: "parabola", 4: "linear polynomial", 5: "exponential polynomial"}


def explain(settings: XrfSettings, calibration: Mapping[str, pathlib.Path], sample: pathlib.Path | None) -> Explanation:
    """Return what the model contains, what a linear fit ignores, and all that is wrong."""
    path = pymca_file.required(calibration)
    config = _loose(path)
    wrong = [f"{path}: {problem}" for problem in pymca_file.problems(config)]
    wrong += [] if wrong else [f"{path}: {refusal}" for refusal in pymca_file.refusals(config, settings)]
    if wrong:
        return Explanation(_facts(config), wrong=tuple(wrong))
    try:
        fitted = FastModel(model.prepare(settings.model_copy(update={"engine": "fast"}), calibration))
        picture = _picture(fitted, settings, sample) if sample else None
    except BadInput as error:
        return Explanation(_facts(config), tuple(_ignored(config)), (str(error),))
    return Explanation(_facts(config), tuple(_ignored(config)), picture=picture)


def _loose(path: pathlib.Path) -> Mapping[str, Any]:
    """Return a configuration that may have problems, so that all of them can be named."""
    config: dict[str, Any] = ConfigDict()
    try:
        with path.open(encoding="utf-8") as file:
            ConfigDict.read_file(config, file)
    except (OSError, UnicodeDecodeError, configparser.Error, AttributeError, TypeError):
        pymca_file.read(path)  # says why
    return config


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    fit, detector = config.get("fit") or {}, config.get("detector") or {}
    peaks = config.get("peaks") or {}
    groups = {element: lines if isinstance(lines, str) else ", ".join(map(str, lines)) for element, lines in peaks.items()}
    first = fit.get("energy")
    first = first[0] if isinstance(first, list) and first else first
    facts = {
        "elements": "; ".join(f"{element} {lines}" for element, lines in groups.items() if lines and lines != "None") or "none",
        "beam": f"{first} keV",
        "channels": f"{fit.get('xmin')} to {fit.get('xmax')}",
        "energy": f"{detector.get('zero')} + {detector.get('gain')} x channel, in keV",
        "background": _background(fit),
        "continuum": CONTINUA.get(int(fit.get("continuum") or 0), "unknown"),
    }
    absorbers = config.get("attenuators") or {}
    used = [name for name, one in absorbers.items() if isinstance(one, list) and one and float(one[0])]
    facts["absorbers"] = ", ".join(used) or "none"
    wanted = config.get("concentrations") or {}
    mode = f"relative to {wanted.get('reference')}" if wanted.get("usematrix") else "fundamental parameters"
    given = f"flux {wanted.get('flux')}/s, {wanted.get('time')} s, {wanted.get('distance')} cm"
    return facts | {"fractions": f"{mode}: {given}" if wanted else "none"}


def _background(fit: Mapping[str, Any]) -> str:
    if not fit.get("stripflag"):
        return "not stripped"
    return f"SNIP of width {fit.get('snipwidth')}" if fit.get("stripalgorithm") == pymca_file.SNIP else "strip"


def _ignored(config: Mapping[str, Any]) -> Iterator[str]:
    fit = config["fit"]
    if not fit.get("linearfitflag"):
        yield "[fit] linearfitflag: the fit is linear here; energy axis and peak widths stay as they are (or set calibrate: true)"
    if fit.get("sumflag"):
        yield "[fit] sumflag: pile-up is not linear, so no fast fit has it"
    if fit.get("fitweight"):
        yield "[fit] fitweight: the setting weight decides"
    if fit.get("hypermetflag", 1) > 1 and not fit.get("linearfitflag"):
        yield "[peakshape] the parameters of tails and steps stay as they are"
    if (config.get("concentrations") or {}).get("useautotime"):
        yield "[concentrations] useautotime: spectra bring no time; mass_fractions: true is refused"


def _picture(fitted: FastModel, settings: XrfSettings, sample: pathlib.Path) -> drawing.Picture:
    spectrum = reference_spectrum.read(sample)
    fitted.check(len(spectrum))
    counts = spectrum[None, fitted.fitted].astype(np.float32)
    found = fitted.fit(counts, counts)
    total = found.continuum + np.sum(list(fitted.components(found.areas).values()), axis=0)
    x = energy(*fitted.axis, len(spectrum))[fitted.fitted]
    order = np.argsort(-found.areas[0])[:6]
    largest = ", ".join(f"{fitted.names[at]} {found.areas[0, at]:.0f}" for at in order)
    title = f"{sample.name}: chi2 {found.chi2[0]:.3g}; largest areas: {largest}"
    return drawing.curves(x, {"measured": counts[0], "fit": total, "background": found.continuum}, title, "keV")
