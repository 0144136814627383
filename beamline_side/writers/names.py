"""Which product of a pipeline has the plain names: the one that the pipeline file asks for now; a superseded one has odd names.

Theory: all files of a product begin with its stem, `<pipeline>` or `<pipeline>.<first 8 digits of its digest>`, so giving it
another name is renaming them. The new record is written before the first file is renamed and says where they come from, and the
old one goes last: whoever dies in between leaves every file where one of the records says, and the next one goes on.
A result file under the plain name that is not ours is left alone. Files of 0.1.0 have no record: theirs are told by the
result file, whose maps have pictures of the same name.

Clock policy: none. Invariant: a name is never taken from the product that has it by right.
"""

import os
import pathlib

import h5py
import msgspec

from beamline_side.writers.outputs import plain, remove
from beamline_side.writers.written import Written, forget, keep, record_of, records, stems
from beamtide.messages.results import Product
from beamtide.results.layout import scan_folder

PICTURES = (("tiff", "maps", ".tif"), ("jpeg", "preview", ".jpg"))
"""Writer, folder and ending of the files that 0.1.0 made of each map."""


def show(processed: pathlib.Path, product: Product) -> None:
    """Give a product the plain names, and the one that had them its odd ones."""
    go_on(scan_folder(processed, product.scan))
    plain_stem, own = stems(processed, product)
    before = product_at(plain_stem)
    if before == product or (before is None and result_of(plain_stem).exists()):
        return
    if before is not None:
        rename(plain_stem, stems(processed, before)[1])
    if product_at(own) == product:
        rename(own, plain_stem)


def rename(old: pathlib.Path, new: pathlib.Path) -> None:
    """Give all files with one stem another one."""
    record = record_of(old) or _record_of_0_1_0(old)
    if record is None:
        return
    files = {name: tuple(_other(path, old.name, new.name) for path in paths) for name, paths in record.files.items()}
    keep(new, msgspec.structs.replace(record, files=files, moved_from=old.name))
    go_on(new.parent)


def go_on(folder: pathlib.Path) -> None:
    """End what somebody began to rename in the folder of a scan."""
    for stem, record in records(folder).items():
        if not record.moved_from:
            continue
        for path in (path for paths in record.files.values() for path in paths):
            old, new = folder / _other(path, stem.name, record.moved_from), folder / path
            if os.path.lexists(old):
                remove(new)
                old.rename(new)
        before = stem.with_name(record.moved_from)
        if (there := record_of(before)) is not None and there.product == record.product:
            forget(before)
        keep(stem, msgspec.structs.replace(record, moved_from=""))


def product_at(stem: pathlib.Path) -> Product | None:
    """Return the product whose files have this stem; None if none of ours does."""
    record = record_of(stem)
    return record.product if record is not None else product_in(result_of(stem))


def product_in(path: pathlib.Path) -> Product | None:
    """Return the product in a result file; None if it is not one of ours."""
    try:
        with h5py.File(path, "r") as root:
            facts = root["entry"].attrs
            return Product(scan=facts["scan"], pipeline=facts["pipeline"], settings=facts["settings"])
    except (OSError, KeyError, ValueError):
        return None


def result_of(stem: pathlib.Path) -> pathlib.Path:
    """Return the path of the result file with this stem."""
    return stem.with_name(f"{stem.name}.h5")


def _other(path: str, old: str, new: str) -> str:
    """Return the path of a file, below the folder of its scan, with another stem."""
    whole = pathlib.PurePosixPath(path)
    return whole.with_name(new + whole.name.removeprefix(old)).as_posix()


def _record_of_0_1_0(stem: pathlib.Path) -> Written | None:
    """Return a record of what 0.1.0 wrote, which belongs to no run of the scan; None if that is nothing."""
    product = product_in(result_of(stem))
    if product is None:
        return None
    files: dict[str, tuple[str, ...]] = {"hdf5": (result_of(stem).name,)}
    with h5py.File(result_of(stem), "r") as root:
        maps: list[str] = []
        if (group := root.get("entry/maps")) is not None:
            group.visititems(lambda name, item: maps.append(name) if isinstance(item, h5py.Group) else None)
    for writer, folder, ending in PICTURES:
        made = [f"{folder}/{stem.name}_{plain(name)}{ending}" for name in maps]
        files[writer] = tuple(path for path in made if (stem.parent / path).exists())
    return Written(product=product, started=0.0, points=0, files={name: made for name, made in files.items() if made})
