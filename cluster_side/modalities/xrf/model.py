"""The prepare step of XRF: PyMca's model of a configuration as plain arrays, so that workers need no PyMca.

    facts       JSON in bytes: names, zero, gain, low, high (fit limits in channels), continuum (how many of the parameters),
                snip (width, or 0 for no background), reference (the parameter that mass fractions are relative to, or null)
    templates   (channel, parameter)  what one count of each line group, or one unit of a continuum term, looks like
    weights     (channel)             of the squared residuals; frozen, so a result does not depend on its neighbours
    cuts        (anchor)              channels between which SNIP works on its own
    fractions   (parameter)           mass fraction of one count; NaN where there is none; empty if they are not wanted

With `calibrate`, zero, gain, noise and Fano factor come from PyMca's non-linear fit of the reference spectrum, which is repeated
from its own result until the axis does not change: PyMca may end it early, with the axis that it began with.
"""

import contextlib
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PyMca5.PyMcaPhysics.xrf.ClassMcaTheory import McaTheory

from beamtide.errors import BadInput
from cluster_side.modalities.xrf import pymca_file, reference_spectrum
from cluster_side.modalities.xrf.pymca_fit import KeptFit, silent
from cluster_side.modalities.xrf.spec import XrfSettings

Array = NDArray[Any]
Values = NDArray[np.float64]
WORST_CONDITION = 1e6
"""Above this condition number of the scaled templates some line groups cannot be told apart."""
FLOOR = 0.01
"""Weights are 1 / (spectrum + FLOOR x its mean): an empty channel must not decide everything."""
AGAIN, SETTLED = 5, 0.1
"""How often the calibrating fit is repeated at most, and by how many channels a settled axis may move."""
CALIBRATED = ("Zero", "Gain", "Noise", "Fano")


def prepare(settings: XrfSettings, calibration: Mapping[str, pathlib.Path]) -> dict[str, Array]:
    """Return the arrays of the fast engine; PyMca's own engine needs none. BadInput says what is wrong with a file."""
    if settings.engine != "fast":
        return {}
    path = pymca_file.required(calibration)
    config = pymca_file.read(path)
    for refusal in pymca_file.refusals(config, settings):
        raise BadInput(f"{path}: {refusal}")
    spectrum = reference_spectrum.read(calibration["spectrum"]) if "spectrum" in calibration else None
    if settings.calibrate:
        names = built(config, 0, path).names
        found = calibrated(config, _needed(spectrum, "calibrate: true", calibration, config), names)
        config["detector"].update(found)
    fit = built(config, settings.weight, path)
    fractions, reference = fit.mass_fractions(path, spectrum) if settings.mass_fractions else (np.empty(0), None)
    weights = np.ones(len(fit.channels))
    if settings.weight:
        weights = weights_of(_needed(spectrum, "weight: 1", calibration, config)[fit.channels.astype(int)])
    _check_condition(fit.model[0], weights, path)
    return _arrays(fit, config, reference) | {"weights": weights, "fractions": fractions}


def _arrays(fit: KeptFit, config: Mapping[str, Any], reference: int | None) -> dict[str, Array]:
    templates, names, _, continuum = fit.model
    fitted = slice(int(fit.channels[0]), int(fit.channels[0]) + len(templates))
    facts = {
        "names": list(names[continuum:]),
        "zero": float(config["detector"]["zero"]),
        "gain": float(config["detector"]["gain"]),
        "low": fitted.start,
        "high": fitted.stop,
        "continuum": continuum,
        "snip": int(config["fit"]["snipwidth"]) if config["fit"].get("stripflag") else 0,
        "reference": reference,
    }
    return {
        "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
        "templates": np.ascontiguousarray(templates, dtype=np.float64),
        "cuts": np.array([0, *fit.anchors, len(templates)], dtype=np.int64),
    }


def built(config: Mapping[str, Any], weight: int, path: pathlib.Path) -> KeptFit:
    """Return PyMca's fast fit with its model built; BadInput if PyMca cannot do that."""
    try:
        fit = KeptFit(config, weight)
        fit.fit(np.zeros((1, int(config["fit"]["xmax"]) + 1)), refit=False)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path}: PyMca cannot build a model of this configuration ({reason}); open it in PyMca") from error
    return fit


def calibrated(config: Mapping[str, Any], spectrum: Values, names: Collection[str]) -> dict[str, float]:
    """Return zero, gain, noise and Fano factor of a spectrum; `names`: the line groups that have lines among the channels."""
    wanted = {section: dict(values) if isinstance(values, dict) else values for section, values in config.items()}
    wanted["fit"]["linearfitflag"] = 0
    wanted["peaks"] = {name: kept for name, groups in config["peaks"].items() if (kept := _named(name, groups, names))}
    edges = np.array([config["fit"]["xmin"], config["fit"]["xmax"]])
    found = _fitted(wanted, spectrum)
    for _ in range(AGAIN):
        wanted["detector"].update(zero=found["zero"], gain=found["gain"])
        with contextlib.suppress(BadInput):  # then the result before is the best one
            found = _fitted(wanted, spectrum)
        moved = found["zero"] - wanted["detector"]["zero"] + (found["gain"] - wanted["detector"]["gain"]) * edges
        if np.abs(moved).max() < SETTLED * found["gain"]:
            break
    return found


def _named(element: str, groups: str | list[str], names: Collection[str]) -> list[str]:
    """Return those line groups of an element that are named."""
    return [group for group in ([groups] if isinstance(groups, str) else groups) if f"{element} {group}" in names]


def _fitted(config: Mapping[str, Any], spectrum: Values) -> dict[str, float]:
    try:
        with silent(), np.errstate(all="ignore"):  # it tries widths with a negative square
            theory = McaTheory()
            theory.setConfiguration(config)
            theory.setData(y=spectrum, xmin=config["fit"]["xmin"], xmax=config["fit"]["xmax"])
            theory.estimate()
            theory.startfit(digest=0)
    except np.linalg.LinAlgError as error:
        raise BadInput(
            f"calibrate: PyMca cannot fit the reference spectrum ({error}); take out line groups that it does not show, in PyMca"
        ) from error
    found = dict(zip(theory.PARAMETERS, theory.fittedpar, strict=True))
    if not all(np.isfinite(found[name]) for name in CALIBRATED) or found["Gain"] <= 0:
        raise BadInput(f"calibrate: PyMca's fit of the reference spectrum did not converge (gain {found['Gain']:g})")
    return {name.lower(): float(found[name]) for name in CALIBRATED}


def weights_of(spectrum: Values) -> Values:
    """Return 1 / variance for counts distributed as in a spectrum, with a floor, and mean 1."""
    weights = 1.0 / (spectrum + FLOOR * max(spectrum.mean(), np.finfo(float).tiny))
    return np.asarray(weights / weights.mean())


def _needed(spectrum: Values | None, wish: str, calibration: Mapping[str, pathlib.Path], config: Mapping[str, Any]) -> Values:
    if spectrum is None:
        raise BadInput(f"{wish} needs calibration.spectrum: the sum spectrum of a scan (an earlier result file, .npy or .spe)")
    if len(spectrum) <= config["fit"]["xmax"]:
        raise BadInput(
            f"{calibration['spectrum']} has {len(spectrum)} channels, but [fit] xmax is {config['fit']['xmax']:g}; "
            "use the spectrum of this detector"
        )
    if not spectrum.any():
        raise BadInput(f"{calibration['spectrum']} is empty: all its channels are 0; choose another scan")
    return spectrum


def _check_condition(templates: Array, weights: Values, path: pathlib.Path) -> None:
    scaled = templates * np.sqrt(weights)[:, None]
    lengths = np.linalg.norm(scaled, axis=0)
    if not lengths.all():
        raise BadInput(f"{path}: a line group has no line between [fit] xmin and xmax; remove it, or widen the limits")
    worst = np.linalg.cond(scaled / lengths)
    if worst > WORST_CONDITION:
        raise BadInput(f"{path}: some line groups look alike (condition number {worst:.1g}); remove those that overlap")
