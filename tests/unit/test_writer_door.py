"""Writers from outside: what they cannot break, how they fail, and that the suite for their authors finds what is wrong."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.testing.writer_suite import check_writer
from beamline_side.writers.atomic import discard
from beamline_side.writers.files import TRIES, Outcome, ProductFiles, stem_of
from beamline_side.writers.outputs import HiddenOutputs
from beamline_side.writers.written import forget_refusals, never_written, unwritten
from beamtide import registry
from beamtide.errors import BadInput, Broken
from beamtide.writers import FinishedProduct, FormatWriter, Outputs
from tests.writer_scans import content, line, product_of, state_of

FOLDER = "beamtide/scan_1"


def text(product: FinishedProduct, out: Outputs) -> None:
    out.path(".txt").write_text(", ".join(product.results))


def arrays(product: FinishedProduct, out: Outputs) -> None:
    """As the example of the documentation, in a few lines."""
    folder = out.path(".arrays")
    folder.mkdir()
    named = {}
    for number, (name, dataset) in enumerate(product.results.items()):
        np.save(folder / f"{number}.npy", dataset.values)
        named[name] = [f"{number}.npy", dataset.units]
    (folder / "names.json").write_text(json.dumps(named))


def read_arrays(folder: pathlib.Path) -> dict[str, tuple[Any, str]]:
    named = json.loads((folder / "names.json").read_text())
    return {name: (np.load(folder / file), units) for name, (file, units) in named.items()}


def raising(error: Exception) -> FormatWriter:
    def write(product: FinishedProduct, out: Outputs) -> None:
        out.path(".half").write_text("half")
        raise error

    return write


def written(folder: pathlib.Path, writers: dict[str, FormatWriter], files: ProductFiles | None = None, **more: object) -> Outcome:
    files = files or ProductFiles(folder, product_of(), state_of(), tuple(writers))
    return files.write(content(**more), lambda name: writers.get(name) or registry.find("writers", name))


def names_in(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def test_a_writer_that_fails_stops_no_other_and_only_what_is_missing_is_tried_again(tmp_path: pathlib.Path) -> None:
    seen: list[str] = []

    def counted(product: FinishedProduct, out: Outputs) -> None:
        seen.append("text")
        text(product, out)

    writers: dict[str, FormatWriter] = {"broken": raising(OSError(28, "No space left on device")), "text": counted, "hdf5": None}  # type: ignore[dict-item]
    outcome = written(tmp_path, writers)
    assert (list(outcome.failed), outcome.refused) == (["broken"], {})
    assert names_in(tmp_path) == [".xrf.written.json", "xrf.h5", "xrf.txt"]
    assert unwritten(tmp_path, product_of(), state_of(), writers) == {"broken": ""}
    before = (tmp_path / FOLDER / "xrf.h5").stat().st_ino
    assert list(written(tmp_path, writers).failed) == ["broken"]
    written(tmp_path, writers | {"broken": arrays})
    assert unwritten(tmp_path, product_of(), state_of(), writers) == {}
    assert (seen, (tmp_path / FOLDER / "xrf.h5").stat().st_ino) == (["text"], before)


def test_what_can_never_be_is_noted_with_its_reason_and_not_asked_for_again(tmp_path: pathlib.Path) -> None:
    writers = {"odd": raising(BadInput("odd is for spectra, and xrf has none")), "text": text}
    assert written(tmp_path, writers).refused == {"odd": "odd is for spectra, and xrf has none"}
    reason = {"odd": "odd is for spectra, and xrf has none"}
    assert unwritten(tmp_path, product_of(), state_of(), writers) == reason
    assert never_written(tmp_path, product_of(), tuple(writers)) == reason
    forget_refusals(tmp_path, product_of().scan)
    assert unwritten(tmp_path, product_of(), state_of(), writers) == {"odd": ""}


@pytest.mark.parametrize(("error", "believed"), [(ValueError("of its own"), True), (OSError(5, "disk"), False)])
def test_a_writer_that_stumbles_is_believed_after_some_tries_but_a_disk_may_recover(
    tmp_path: pathlib.Path, error: Exception, believed: bool
) -> None:
    writers = {"odd": raising(error)}
    files = ProductFiles(tmp_path, product_of(), state_of(), ("odd",))
    outcomes = [written(tmp_path, writers, files) for _ in range(TRIES + 2)]
    assert [bool(outcome.refused) for outcome in outcomes] == [believed and number >= TRIES - 1 for number in range(TRIES + 2)]
    assert names_in(tmp_path) == [".xrf.written.json"]
    if believed:
        assert outcomes[-1].refused == {"odd": "ValueError: of its own"}


def test_a_disk_that_hdf5_stumbled_over_ends_the_process_whoever_was_writing(tmp_path: pathlib.Path) -> None:
    error = OSError("Can't write data (file write failed: time = x, filename = 'y', errno = 28, error message = 'z')")
    with pytest.raises(Broken, match="could not be written: No space left on device"):
        written(tmp_path, {"odd": raising(error)})
    assert names_in(tmp_path) == []


def test_corrections_another_run_and_other_positions_have_everything_written_anew(tmp_path: pathlib.Path) -> None:
    writers = {"text": text, "arrays": arrays}
    written(tmp_path, writers, corrections=1, positions_settings="p")
    assert unwritten(tmp_path, product_of(), state_of(), writers, (1, "p")) == {}
    both = {"text": "", "arrays": ""}
    assert unwritten(tmp_path, product_of(), state_of(), writers, (2, "p")) == both
    assert unwritten(tmp_path, product_of(), state_of(), writers, (1, "q")) == both
    assert unwritten(tmp_path, product_of(), state_of(rows=3), writers, (1, "p")) == both
    old = tmp_path / FOLDER / "xrf.arrays" / "left.over"
    old.touch()
    written(tmp_path, writers, corrections=2)
    assert not old.exists(), "a folder is replaced, not filled up"
    assert unwritten(tmp_path, product_of(), state_of(), writers, (2, "")) == {}


def test_what_is_gone_is_written_again_and_a_format_that_is_added_is_written_alone(tmp_path: pathlib.Path) -> None:
    written(tmp_path, {"text": text})
    assert unwritten(tmp_path, product_of(), state_of(), ("text", "arrays")) == {"arrays": ""}
    (tmp_path / FOLDER / "xrf.txt").unlink()
    assert unwritten(tmp_path, product_of(), state_of(), ("text",)) == {"text": ""}
    (tmp_path / FOLDER / ".xrf.written.json").write_bytes(b'{"product":')
    assert unwritten(tmp_path, product_of(), state_of(), ("text",)) == {"text": ""}
    assert not written(tmp_path, {"text": text}).failed


def test_two_settings_without_a_result_file_do_not_share_a_name(tmp_path: pathlib.Path) -> None:
    second = product_of("cd" * 32)
    written(tmp_path, {"text": text})
    files = ProductFiles(tmp_path, second, state_of(), ("text",))
    results = [line(number, product=second) for number in range(4)]
    files.write(content(product=second, results=results), lambda _: text)
    assert names_in(tmp_path) == [".xrf.cdcdcdcd.written.json", ".xrf.written.json", "xrf.cdcdcdcd.txt", "xrf.txt"]
    assert stem_of(tmp_path, product_of()).name == "xrf"


def test_writers_that_want_the_same_name_are_told(tmp_path: pathlib.Path) -> None:
    def result(product: FinishedProduct, out: Outputs) -> None:
        out.path(".h5").touch()

    def live(product: FinishedProduct, out: Outputs) -> None:
        out.path(".live.h5").touch()

    refused = written(tmp_path, {"text": text, "again": text, "live": live}).refused
    assert refused["again"] == "the writer again wants to write xrf.txt, which is for the writer text; it needs another ending"
    assert "the file that grows while a scan runs" in refused["live"]
    refused = written(tmp_path, {"hdf5": None, "result": result}).refused  # type: ignore[dict-item]
    assert refused == {"result": "the writer result wants to write xrf.h5, which is for the writer hdf5; it needs another ending"}
    with h5py.File(tmp_path / FOLDER / "xrf.h5") as root:
        assert root["entry"].attrs["pipeline"] == "xrf"


def test_a_writer_that_did_not_make_what_it_asked_for_or_made_a_link_is_told(tmp_path: pathlib.Path) -> None:
    def nothing(product: FinishedProduct, out: Outputs) -> None:
        out.path(".txt")

    def linked(product: FinishedProduct, out: Outputs) -> None:
        out.path(".link").symlink_to("/etc/passwd")

    refused = written(tmp_path, {"nothing": nothing, "linked": linked}).refused
    assert refused["nothing"] == "the writer nothing asked for xrf.txt and did not make it"
    assert "is a link" in refused["linked"]
    assert names_in(tmp_path) == [".xrf.written.json"]


@pytest.mark.timeout(20)
def test_only_files_and_folders_get_a_name(tmp_path: pathlib.Path) -> None:
    def pipe(product: FinishedProduct, out: Outputs) -> None:
        os.mkfifo(out.path(".pipe"))

    def deep(make: Callable[[pathlib.Path], None]) -> FormatWriter:
        def write(product: FinishedProduct, out: Outputs) -> None:
            folder = out.path(".deep")
            (folder / "er").mkdir(parents=True)
            make(folder / "er" / "odd")

        return write

    odd = {
        "pipes": deep(os.mkfifo),
        "away": deep(lambda path: path.symlink_to("/etc")),
        "lost": deep(lambda path: path.symlink_to("x")),
    }
    refused = written(tmp_path, {"pipe": pipe, **odd}).refused
    assert "is a pipe, socket or device" in refused["pipe"]
    assert refused["pipes"] == ".part-xrf.deep/er/odd is a pipe, socket or device; a writer makes files and folders"
    assert refused["away"] == refused["lost"] == ".part-xrf.deep/er/odd is a link; a writer makes files and folders"
    assert names_in(tmp_path) == [".xrf.written.json"]


def test_a_writer_cannot_end_the_process(tmp_path: pathlib.Path) -> None:
    def ends(product: FinishedProduct, out: Outputs) -> None:
        raise SystemExit(2)

    failed = written(tmp_path, {"ends": ends, "text": text}).failed
    assert str(failed["ends"]) == "it wanted to end the process, with code 2"
    assert "xrf.txt" in names_in(tmp_path)


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"mine"), lambda file: file.unlink()])
def test_a_result_that_a_writer_changed_gets_no_name(tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None]) -> None:
    def spoils(product: FinishedProduct, out: Outputs) -> None:
        spoil(product.file)

    with pytest.raises(BadInput, match="the writer spoils changed the result file, which is only to read"):
        written(tmp_path, {"hdf5": None, "spoils": spoils})  # type: ignore[dict-item]
    assert names_in(tmp_path) == []
    assert "xrf.h5" in str(written(tmp_path, {"hdf5": None}).result)  # type: ignore[dict-item]
    assert not (tmp_path / FOLDER / ".draft-xrf.h5").exists()


def test_what_a_dead_writer_left_is_overwritten_file_or_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / FOLDER / ".part-xrf.txt" / "deep").mkdir(parents=True)
    (tmp_path / FOLDER / ".part-xrf.arrays").write_text("a file where a folder will be")
    assert not written(tmp_path, {"text": text, "arrays": arrays}).failed
    assert names_in(tmp_path) == [".xrf.written.json", "xrf.arrays", "xrf.txt"]


def test_a_file_with_another_name_keeps_its_content_when_it_is_discarded(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_text("content")
    os.link(tmp_path / "a", tmp_path / "b")
    discard(tmp_path / "b")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "content")]


NAMES = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["../..", "/etc/passwd", "_a/b.tif", "_a_b.tif", "..", "."]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(NAMES, max_size=8), st.sampled_from(["", "maps"]))
def test_whatever_a_writer_calls_its_files_they_stay_in_the_folder_and_apart(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], folder: str
) -> None:
    place = tmp_path_factory.mktemp("names")
    out = HiddenOutputs("odd", place / "scan" / "xrf", {})
    try:
        paths = [out.path(name, folder) for name in names]
    except BadInput:
        assert any(name.endswith(".live.h5") for name in names)
        return
    for number, path in enumerate(paths):
        path.write_text(str(number))
    made = out.publish()
    assert len(set(made)) == len(names)
    assert [(place / "scan" / name).read_text() for name in made] == [str(number) for number in range(len(names))]
    assert all((place / "scan" / name).parent == place / "scan" / folder for name in made)
    assert {path for path in place.rglob("*") if path.is_file()} == {place / "scan" / name for name in made}


@pytest.mark.parametrize("name", ["hdf5", "tiff", "jpeg"])
def test_our_own_writers_keep_what_is_asked_of_others(tmp_path: pathlib.Path, name: str) -> None:
    check_writer(registry.find("writers", name), tmp_path)


def test_the_suite_is_content_with_a_good_writer(tmp_path: pathlib.Path) -> None:
    check_writer(arrays, tmp_path, read=read_arrays)


def beside(product: FinishedProduct, out: Outputs) -> None:
    out.path(".txt").touch()
    (product.file.parent / "mine.txt").touch()


def scribbles(product: FinishedProduct, out: Outputs) -> None:
    with h5py.File(product.file, "r+") as root:
        root["entry"].attrs["mine"] = 1
    out.path(".txt").touch()


def swallows(product: FinishedProduct, out: Outputs) -> None:
    try:
        arrays(product, out)
    except OSError:
        return


def lazy(product: FinishedProduct, out: Outputs) -> None:
    """Writes nothing that tells one version from another."""
    out.path(".txt").write_text(product.product.scan)


def changed(change: Callable[[np.ndarray, str], tuple[np.ndarray, str]]) -> FormatWriter:
    def write(product: FinishedProduct, out: Outputs) -> None:
        folder = out.path(".arrays")
        folder.mkdir()
        named = {}
        for number, (name, dataset) in enumerate(product.results.items()):
            values, units = change(dataset.values, dataset.units)
            np.save(folder / f"{number}.npy", values)
            named[name] = [f"{number}.npy", units]
        (folder / "names.json").write_text(json.dumps(named))

    return write


def idle(product: FinishedProduct, out: Outputs) -> None: ...


@pytest.mark.parametrize(
    ("writer", "said"),
    [
        (beside, "mine.txt is there, and is no path that the writer was given"),
        (scribbles, "the writer changed the result file"),
        (swallows, r"an error of the disk \(OSError\) was not passed on"),
        (lazy, "corrected results: what was written before is still there"),
        (idle, "it made nothing"),
        (raising(KeyError("x")), r"the writer raised: KeyError"),
        (changed(lambda values, units: (np.nan_to_num(values), units)), "read as other values .* lines .* have no result"),
        (changed(lambda values, units: (values[::-1], units)), "read as other values"),
        (changed(lambda values, units: (values, units.replace("µ", "u"))), "is in 'µm', and 'um' is read"),
    ],
)
def test_the_suite_finds_what_is_wrong_with_a_writer(tmp_path: pathlib.Path, writer: FormatWriter, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_writer(writer, tmp_path, read=None if writer in (beside, scribbles, lazy, idle) else read_arrays)
