"""The record of what was written of a product: the one place that says whether it is finished, whatever its formats are.

It is a hidden file beside the results, `.<stem>.written.json`, and gets its name after all files that it lists. A record without
one of its files, or of another run of the scan, other corrections or other positions, says that there is something to write.
"""

import pathlib
from collections.abc import Collection

import msgspec

from beamline_side.writers.atomic import replacing
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import Product

ENDING = ".written.json"


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written of a product, from which run of its scan, and with what."""

    product: Product
    started: float
    points: int
    corrections: int = 0
    positions: str = ""
    """The settings of the positions that its maps lie on."""
    files: dict[str, tuple[str, ...]] = {}
    """Writer -> what it made, as paths below the folder of the scan."""
    refused: dict[str, str] = {}
    """Writer -> why it cannot write this product."""

    def is_of(self, scan: ScanState, corrections: int, positions: str | None) -> bool:
        """Whether it is of this run of the scan, with so many corrections, on these positions (None: whatever they are)."""
        same = (self.started, self.points) == (scan.started, scan.points) and self.corrections >= corrections
        return same and positions in (None, self.positions)

    def missing(self, folder: pathlib.Path, formats: Collection[str]) -> tuple[str, ...]:
        """Return the formats of which something is not there; `folder` is that of the scan."""
        there = {name for name, paths in self.files.items() if all((folder / path).exists() for path in paths)}
        return tuple(name for name in formats if name not in there)


def record_of(stem: pathlib.Path) -> Written | None:
    """Return the record of the files with this stem; None if there is none that can be read."""
    try:
        return msgspec.json.decode(_place(stem).read_bytes(), type=Written)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def keep(stem: pathlib.Path, record: Written) -> None:
    """Write a record, in place of an older one."""
    with replacing(_place(stem)) as part:
        part.write_bytes(msgspec.json.encode(record))


def listed(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Return everything that was written of a scan; a folder that a writer made is one entry."""
    records = [record_of(place.with_name(place.name[1 : -len(ENDING)])) for place in sorted(folder.glob(f".*{ENDING}"))]
    paths = {folder / path for record in records if record for made in record.files.values() for path in made}
    return tuple(sorted(path for path in paths if path.exists()))


def _place(stem: pathlib.Path) -> pathlib.Path:
    return stem.with_name(f".{stem.name}{ENDING}")
