"""Reads and checks a PyMca configuration file before any spectrum is fitted.

The file is the user's own and stays unchanged; only `linearfitflag` is set in memory, because the fast fit is a linear one.
"""

import configparser
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from PyMca5.PyMcaIO.ConfigDict import ConfigDict

from beamtide.errors import BadInput
from cluster_side.modalities.xrf.spec import XrfSettings

MAX_ENERGY = 200.0
"""In keV; a larger number is meant in eV."""
SNIP = 1
EXPONENTIAL = 5
"""PyMca's number of the continuum exp(polynomial), which is not linear."""


def read(path: pathlib.Path) -> Mapping[str, Any]:
    """Return a configuration for the linear fit; BadInput says what is wrong with the file."""
    config: dict[str, Any] = ConfigDict()
    try:
        with path.open(encoding="utf-8") as file:
            ConfigDict.read_file(config, file)
    except (OSError, UnicodeDecodeError, configparser.Error, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"{path} is not a readable PyMca configuration ({reason}); save it again from PyMca's fit window"
        ) from error
    for problem in problems(config):
        raise BadInput(f"{path}: {problem}")
    config["fit"]["linearfitflag"] = 1
    return config


def required(calibration: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """Return the file of a calibration; BadInput if there is none."""
    if "cfg" not in calibration:
        raise BadInput("calibration.cfg is missing: name the PyMca configuration (.cfg) to fit with")
    return calibration["cfg"]


def refusals(config: Mapping[str, Any], settings: XrfSettings) -> Iterator[str]:
    """Yield what keeps a configuration that has no problems from being used with these settings."""
    fit = config["fit"]
    if settings.engine == "fast" and fit.get("continuum") == EXPONENTIAL:
        yield "[fit] continuum is exponential, which is not linear; choose a polynomial or SNIP in PyMca"
    if settings.engine == "fast" and fit.get("stripflag") and fit.get("stripfilterwidth", 1) > 3:
        yield (
            f"[fit] stripfilterwidth is {fit['stripfilterwidth']}; the fast engine does not smooth spectra: "
            "set it to 1 in PyMca, or engine: pymca"
        )
    if settings.mass_fractions:
        yield from _fraction_problems(config.get("concentrations"))


def _fraction_problems(wanted: object) -> Iterator[str]:
    if not isinstance(wanted, dict) or not wanted:
        yield "there is no section [concentrations], which mass_fractions: true needs; fill in PyMca's concentrations page"
        return
    if wanted.get("useautotime"):
        yield (
            "[concentrations] useautotime is on, but spectra bring no time; switch it off, and enter the exposure in PyMca, or "
            "set mass_fractions: false"
        )
    if not wanted.get("usematrix"):
        for name in ("flux", "time", "area", "distance"):
            if not _is_number(wanted.get(name)) or wanted[name] <= 0:
                yield f"[concentrations] {name} is {wanted.get(name)}; mass_fractions: true needs a positive number there"


def problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a configuration cannot be used."""
    for section in ("fit", "peaks", "detector"):
        if not isinstance(config.get(section), dict):
            yield f"there is no section [{section}]; save the file again from PyMca's fit window"
            return
    if not any(lines and lines != "None" for lines in config["peaks"].values()):
        yield "[peaks] names no element; choose elements in PyMca and save the file again"
    yield from _energy_problems(config["fit"])
    yield from _fit_problems(config["fit"])
    if not _is_number(config["detector"].get("gain")) or config["detector"]["gain"] <= 0:
        yield "[detector] gain must be a positive number (keV per channel); calibrate the spectrum in PyMca"


def _energy_problems(fit: Mapping[str, Any]) -> Iterator[str]:
    energy = fit.get("energy")
    first = energy[0] if isinstance(energy, list) and energy else energy
    if not _is_number(first) or first <= 0:
        yield "[fit] energy is missing; enter the beam energy in keV in PyMca and save the file again"
    elif first > MAX_ENERGY:
        yield f"[fit] energy is {first:g}, which looks like eV; PyMca wants keV"


def _fit_problems(fit: Mapping[str, Any]) -> Iterator[str]:
    if fit.get("strategyflag"):
        yield "[fit] strategyflag is on; the fast fit has no strategies, switch it off"
    if fit.get("stripflag") and fit.get("stripalgorithm") != SNIP:
        yield "[fit] stripalgorithm is not 1 (SNIP); choose the SNIP background in PyMca and save the file again"
    low, high = fit.get("xmin"), fit.get("xmax")
    if not _is_number(low) or not _is_number(high) or not 0 <= low < high:
        yield f"[fit] xmin {low} and xmax {high} are not a range of channels; set the fit limits in PyMca"


def check_channels(config: Mapping[str, Any], channels: int) -> None:
    """Raise BadInput when the fit limits lie outside of the spectra."""
    low, high = config["fit"]["xmin"], config["fit"]["xmax"]
    if high >= channels:
        raise BadInput(
            f"the fit limits xmin {low:g}, xmax {high:g} of the PyMca configuration do not fit spectra of {channels} channels; "
            "use the configuration of this detector"
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
