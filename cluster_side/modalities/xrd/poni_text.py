"""The text of a poni file: which of its blocks counts, and which other files it names. Light: without pyFAI.

pyFAI appends a block to a poni file each time it saves one; the last one counts. pyFAI itself reads key by key and takes the last
of each, so a key that only an earlier block has would come from another calibration: here the last block stands alone.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from beamtide.errors import BadInput

NEEDED = {"distance": "Distance", "poni1": "Poni1", "poni2": "Poni2", "wavelength": "Wavelength"}
FILES = ("filename", "splineFile", "splinefile")
"""Keys of Detector_config that name a file."""
SUFFIXES = (".h5", ".hdf5", ".nxs", ".nx5", ".spline")
Block = dict[str, str]
"""Keys in lower case -> values."""


def last_block(path: pathlib.Path) -> Block:
    """Return the block of a poni file that counts; BadInput if it lacks what a geometry needs."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a readable poni file ({error}); save it again from pyFAI-calib2") from error
    found = blocks(text)
    last = found[-1]
    for key, name in NEEDED.items():
        if key not in last:
            where = f"in the last of its {len(found)} blocks, which is the one that counts" if len(found) > 1 else ""
            raise BadInput(f"{path}: there is no {name}{' ' if where else ''}{where}; save it again from pyFAI-calib2")
    return last


def blocks(text: str) -> list[Block]:
    """Return the blocks of a poni file: one begins where a key comes again, or behind a comment that follows a distance."""
    found: list[Block] = [{}]
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip().lower()
        if line.lstrip().startswith("#"):
            if "distance" in found[-1]:
                found.append({})
        elif colon:
            if key in found[-1]:
                found.append({})
            found[-1][key] = value.strip()
    return [block for block in found if block] or [{}]


def detector_config(block: Mapping[str, str], where: object) -> dict[str, Any]:
    """Return Detector_config of a block; {} if there is none."""
    try:
        config = json.loads(block.get("detector_config", "{}"))
    except ValueError as error:
        raise BadInput(f"{where}: Detector_config is not JSON ({error}); save it again from pyFAI-calib2") from error
    if not isinstance(config, dict):
        raise BadInput(f"{where}: Detector_config is {config!r}, not a mapping; save it again from pyFAI-calib2")
    return config


def states_orientation(block: Mapping[str, str], where: object) -> bool:
    """Whether a block says where pixel 0 lies."""
    return bool(detector_config(block, where).get("orientation"))


def files(role: str, path: pathlib.Path) -> tuple[str, ...]:
    """Return the names of the files that a calibration file needs besides itself: detector files and splines of a poni file."""
    return tuple(_named(last_block(path), path)) if role == "poni" else ()


def with_files(block: Block, where: object, found: Mapping[str, pathlib.Path]) -> Block:
    """Return a block that names files where they lie now; BadInput for one that is not there."""
    named = _named(block, where)
    if missing := [name for name in named if name not in found]:
        raise BadInput(f"{where} names the file {missing[0]}, which did not come with it; put the settings again")
    config, kept = (
        {key: str(found[value]) if value in named else value for key, value in one.items()}
        for one in (detector_config(block, where), block)
    )
    return kept | ({"detector_config": json.dumps(config)} if "detector_config" in block else {})


def _named(block: Mapping[str, str], where: object) -> list[str]:
    config = detector_config(block, where)
    named = [config[key] for key in FILES if config.get(key)]
    if odd := [value for value in named if not isinstance(value, str)]:
        raise BadInput(f"{where}: Detector_config names {odd[0]!r} as a file; save it again from pyFAI-calib2")
    if block.get("splinefile", "none").lower() != "none":
        named.append(block["splinefile"])
    detector = block.get("detector", "")
    if "/" in detector or detector.lower().endswith(SUFFIXES):
        named.append(detector)
    return list(dict.fromkeys(named))
