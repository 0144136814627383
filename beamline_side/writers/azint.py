"""Azimuthally integrated patterns by their NeXus definitions: a further entry, NXazint1d or NXazint2d, for each kind.

Source: nexusformat/definitions v2026.01, applications/NXazint1d and NXazint2d. A product gets these entries if it has datasets of
the right names ("azint1d/I", …; see the modality xrd); numbers are not copied: the fields are hard links to those in entry/data.
The definitions know only q and 2 theta, so patterns over another radial axis get no such entry.
"""

import importlib.metadata
import json
from collections.abc import Mapping

import h5py
import numpy as np

from beamline_side.writers import rows
from beamline_side.writers.product import Content
from beamtide import clock
from beamtide.messages.results import DatasetHeader

AXES = {"azint1d": [".", "radial_axis"], "azint2d": [".", "azimuthal_axis", "radial_axis"]}
KNOWN = ("q", "2theta")
REFERENCE = "J. Kieffer et al., J. Appl. Cryst. 48 (2015) 510, https://doi.org/10.1107/S1600576715004306"
UNKNOWN = "unknown"


def write(root: h5py.Group, content: Content, headers: Mapping[str, DatasetHeader]) -> None:
    """Add an entry for each kind of pattern among the datasets of entry/data."""
    for kind, axes in AXES.items():
        radial = headers.get(f"{kind}/radial_axis")
        if f"{kind}/I" in headers and radial is not None and radial.long_name in KNOWN:
            entry = rows.group(root, kind, "NXentry", default="data")
            _describe(entry, content, headers[f"{kind}/I"])
            _instrument(entry, content, root["entry/data/beam"])
            _reduction(entry, content)
            shape = "spectrum" if kind == "azint1d" else "image"
            data = rows.group(entry, "data", "NXdata", signal="I", axes=axes, interpretation=shape)
            for name in ("I", "I_errors", *axes[1:], "norm"):
                if name in root[f"entry/data/{kind}"]:
                    data[name] = root[f"entry/data/{kind}/{name}"]
            for position, name in enumerate(axes[1:], 1):
                data.attrs[f"{name}_indices"] = np.int32(position)


def _describe(entry: h5py.Group, content: Content, header: DatasetHeader) -> None:
    rows.field(entry, "definition", f"NX{entry.name.strip('/')}")
    rows.field(entry, "title", f"{content.product.pipeline} of {content.product.scan}")
    for name in ("solid_angle_applied", "polarization_applied", "normalization_applied", "monitor_applied"):
        rows.field(entry, name, np.bool_(header.attributes.get(name) == "true"))


def _instrument(entry: h5py.Group, content: Content, beam: h5py.Group) -> None:
    info = content.scan.scan.info
    instrument = rows.group(entry, "instrument", "NXinstrument")
    rows.field(instrument, "name", info.get("instrument", UNKNOWN))
    monochromator = rows.group(instrument, "monochromator", "NXmonochromator")
    for name, units in (("wavelength", "angstrom"), ("energy", "keV")):
        rows.field(monochromator, name, float(beam[name][0]), units)
    source = rows.group(instrument, "source", "NXsource")
    for name, value in (("name", info.get("source", UNKNOWN)), ("type", "Synchrotron X-ray Source"), ("probe", "x-ray")):
        rows.field(source, name, value)


def _reduction(entry: h5py.Group, content: Content) -> None:
    reduction = rows.group(entry, "reduction", "NXprocess")
    facts = {
        "program": f"beamtide {content.modality}",
        "version": importlib.metadata.version("beamtide"),
        "date": clock.iso(),
        "reference": REFERENCE,
    }
    for name, value in facts.items():
        rows.field(reduction, name, value)
    given = rows.group(reduction, "input", "NXparameters")
    if content.document is not None:
        for name, value in sorted(json.loads(content.document.values).items()):
            rows.field(given, name, json.dumps(value))
    if "poni" in content.files:
        rows.field(given, "poni", content.files["poni"].decode(errors="replace"))
