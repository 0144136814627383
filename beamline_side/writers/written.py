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
from beamtide.results import layout

ENDING = ".written.json"
GONE = "its results stood in files that are not there any more, and the sink has let go of them; reprocess the scan"


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
    moved_from: str = ""
    """While files get other names: the stem of the old ones. Some may still have them."""

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


def forget(stem: pathlib.Path) -> None:
    """Delete a record."""
    _place(stem).unlink(missing_ok=True)


def records(folder: pathlib.Path) -> dict[pathlib.Path, Written]:
    """Return all records of a scan, by stem."""
    found = [place.with_name(place.name[1 : -len(ENDING)]) for place in sorted(folder.glob(f".*{ENDING}"))]
    return {stem: record for stem in found if (record := record_of(stem)) is not None}


def listed(folder: pathlib.Path, *, shown: bool = False) -> tuple[pathlib.Path, ...]:
    """Return everything that was written of a scan; a folder that a writer made is one entry. `shown`: under plain names."""
    plain = [one for stem, one in records(folder).items() if not shown or stem.name == one.product.pipeline]
    paths = {folder / path for record in plain for made in record.files.values() for path in made}
    return tuple(sorted(path for path in paths if path.exists()))


def unwritten(
    processed: pathlib.Path,
    product: Product,
    scan: ScanState,
    formats: Collection[str],
    drawn_with: tuple[int, str | None] = (0, None),
) -> dict[str, str]:
    """Return the formats in which a product is not written: format -> why it cannot be, "" if it is still to be done.

    Of exactly this run of the scan, with so many corrections, on positions with these settings (None: whatever they are).
    """
    found = _found(processed, product)
    if found is None or not found[1].is_of(scan, *drawn_with):
        return dict.fromkeys(formats, "")
    return {name: found[1].refused.get(name, "") for name in found[1].missing(found[0].parent, formats)}


def never_written(processed: pathlib.Path, product: Product, formats: Collection[str]) -> dict[str, str]:
    """Return the formats that a finished product does not have -> why."""
    found = _found(processed, product)
    missing = formats if found is None else found[1].missing(found[0].parent, formats)
    return {name: (found[1].refused.get(name) if found else None) or GONE for name in missing}


def forget_refusals(processed: pathlib.Path, scan: str) -> None:
    """Have what no writer could do of a scan tried again."""
    for stem, record in records(layout.scan_folder(processed, scan)).items():
        if record.refused:
            keep(stem, msgspec.structs.replace(record, refused={}))


def _found(processed: pathlib.Path, product: Product) -> tuple[pathlib.Path, Written] | None:
    """Return the path of a product's files, without endings, and their record."""
    for stem in stems(processed, product):
        record = record_of(stem)
        if record is not None and record.product == product:
            return stem, record
    return None


def stems(processed: pathlib.Path, product: Product) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the path of all files of a product without endings: the plain one, and the one with digits of its settings."""
    plain = layout.result_file(processed, product.scan, product.pipeline)
    beside = layout.result_file(processed, product.scan, product.pipeline, product.settings)
    return plain.with_suffix(""), beside.with_suffix("")


def _place(stem: pathlib.Path) -> pathlib.Path:
    return stem.with_name(f".{stem.name}{ENDING}")
