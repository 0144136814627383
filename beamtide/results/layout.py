"""The names of result folders and files; nothing else knows them.

`<processed>/beamtide/<scan>/<pipeline>.h5`, beside it `maps/`, `preview/`, and while a scan runs `<pipeline>.live.h5`.
The plain name is that of the settings that the pipeline file asks for now; results of superseded settings lie beside it:
`<pipeline>.<first 8 digits of its digest>.h5`.
"""

import pathlib
from typing import Protocol

from beamtide.config.section import NAME
from beamtide.errors import BadInput


def checked(name: str) -> str:
    """Return a name that cannot leave its folder; BadInput otherwise."""
    if not NAME.fullmatch(name):
        raise BadInput(f"the name {name!r} cannot be used for a file: use letters, digits, or _ . + -, no leading dot")
    return name


class FileRule(Protocol):
    """A function that gives the path of a kind of file: `result_file` or `live_file`."""

    def __call__(self, processed: pathlib.Path, scan: str, pipeline: str, settings: str = "") -> pathlib.Path:
        """Return the path."""
        ...


def scan_folder(processed: pathlib.Path, scan: str) -> pathlib.Path:
    """Return the folder of a scan's results."""
    return processed / "beamtide" / checked(scan)


def result_file(processed: pathlib.Path, scan: str, pipeline: str, settings: str = "") -> pathlib.Path:
    """Return the finished result file of a pipeline; with `settings`, the one beside it for that digest."""
    return scan_folder(processed, scan) / f"{_stem(pipeline, settings)}.h5"


def live_file(processed: pathlib.Path, scan: str, pipeline: str, settings: str = "") -> pathlib.Path:
    """Return the live file, which grows while the scan runs; with `settings`, the one beside it for that digest."""
    return scan_folder(processed, scan) / f"{_stem(pipeline, settings)}.live.h5"


def _stem(pipeline: str, settings: str) -> str:
    return f"{checked(pipeline)}.{checked(settings[:8])}" if settings else checked(pipeline)
