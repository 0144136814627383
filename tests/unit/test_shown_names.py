"""Which product has the plain names, whoever dies while files get others."""

import pathlib
import shutil

import h5py
import pytest

from beamline_side.writers import names
from beamline_side.writers.written import Written, keep, record_of, records
from beamtide.messages.results import Product
from beamtide.results.layout import scan_folder
from tests.builders.tasks import make_product

FIRST, SECOND = make_product(pipeline="xrf", settings="a" * 64), make_product(pipeline="xrf", settings="b" * 64)
FILES = {"hdf5": (".h5",), "jpeg": ("preview/", "_Fe.jpg"), "zarr": (".zarr",)}


def make(processed: pathlib.Path, product: Product, stem: str) -> None:
    """Write a result file, a picture and a folder, each with the digest of its product inside, and the record."""
    folder = scan_folder(processed, product.scan)
    (folder / "preview").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{stem}.h5", "w") as file:
        file.create_group("entry").attrs.update(
            {"scan": product.scan, "pipeline": product.pipeline, "settings": product.settings}
        )
    (folder / "preview" / f"{stem}_Fe.jpg").write_text(product.settings)
    (folder / f"{stem}.zarr").mkdir()
    (folder / f"{stem}.zarr" / "zarr.json").write_text(product.settings)
    made = {"hdf5": (f"{stem}.h5",), "jpeg": (f"preview/{stem}_Fe.jpg",), "zarr": (f"{stem}.zarr",)}
    keep(folder / stem, Written(product=product, started=1.0, points=4, files=made))


def found(processed: pathlib.Path) -> dict[str, str]:
    """Return the stems, and which product all of its files are of; each file that a record names must be there."""
    shown = {}
    for stem, record in records(scan_folder(processed, FIRST.scan)).items():
        assert record.missing(stem.parent, record.files) == ()
        digest = record.product.settings
        assert names.product_in(stem.with_name(f"{stem.name}.h5")) == record.product
        assert (stem.parent / record.files["jpeg"][0]).read_text() == digest
        assert (stem.parent / record.files["zarr"][0] / "zarr.json").read_text() == digest
        shown[stem.name] = digest[0]
    return shown


def test_the_product_that_is_asked_for_has_the_plain_names(tmp_path: pathlib.Path) -> None:
    make(tmp_path, FIRST, "xrf")
    names.show(tmp_path, FIRST)
    assert found(tmp_path) == {"xrf": "a"}
    names.show(tmp_path, SECOND)
    assert found(tmp_path) == {"xrf.aaaaaaaa": "a"}, "it makes room before the other is written"
    make(tmp_path, SECOND, "xrf")
    names.show(tmp_path, FIRST)
    assert found(tmp_path) == {"xrf": "a", "xrf.bbbbbbbb": "b"}
    names.show(tmp_path, SECOND)
    assert found(tmp_path) == {"xrf": "b", "xrf.aaaaaaaa": "a"}


class Killed(Exception):
    """The process dies here."""


def test_whoever_dies_in_between_loses_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each rename and each record in turn."""
    steps = 0
    while True:
        folder, left = tmp_path / str(steps), steps
        make(folder, FIRST, "xrf")
        make(folder, SECOND, "xrf.bbbbbbbb")

        def dies(do: object) -> object:
            def step(*given: object) -> object:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return do(*given)  # type: ignore[operator]

            return step

        with monkeypatch.context() as patched:
            for where, name in ((pathlib.Path, "rename"), (names, "keep"), (names, "forget")):
                patched.setattr(where, name, dies(getattr(where, name)))
            try:
                names.show(folder, SECOND)
            except Killed:
                pass
            else:
                break
        names.show(folder, SECOND)
        assert found(folder) == {"xrf": "b", "xrf.aaaaaaaa": "a"}, f"killed before step {steps}"
        steps += 1
    assert steps > 8


def test_what_is_not_ours_is_left_alone(tmp_path: pathlib.Path) -> None:
    folder = scan_folder(tmp_path, FIRST.scan)
    make(tmp_path, FIRST, "xrf.aaaaaaaa")
    with h5py.File(folder / "xrf.h5", "w") as file:
        file["of somebody else"] = 1
    names.show(tmp_path, FIRST)
    assert (folder / "xrf.aaaaaaaa.h5").exists()
    with h5py.File(folder / "xrf.h5") as file:
        assert "of somebody else" in file


def test_files_of_0_1_0_make_room_with_their_pictures(tmp_path: pathlib.Path) -> None:
    golden = pathlib.Path(__file__).parents[1] / "golden" / "v0_1_0" / "results" / "xrf.h5"
    before = names.product_in(golden)
    assert before is not None
    folder = scan_folder(tmp_path, before.scan)
    (folder / "maps").mkdir(parents=True)
    stem = folder / before.pipeline
    shutil.copy(golden, stem.with_name(f"{stem.name}.h5"))
    with h5py.File(golden) as file:
        area = next(iter(file["entry/maps/area"]))
    (folder / "maps" / f"{stem.name}_area_{area}.tif").write_text("a map")
    names.show(tmp_path, make_product(before.scan, before.pipeline, "c" * 64))
    odd = f"{before.pipeline}.{before.settings[:8]}"
    assert names.product_in(folder / f"{odd}.h5") == before
    assert (folder / "maps" / f"{odd}_area_{area}.tif").read_text() == "a map"
    assert not stem.with_name(f"{stem.name}.h5").exists()
    assert record_of(folder / odd) is not None
