"""What the engine relies on in a file format: `check_format` tries all of it on copies of one good file.

Theory: the source probes files again and again while a detector writes them, and a worker reads frames much later, in another
process and by parts. So what is counted must be what can be read, a part must be that part of the whole, and a file that is cut
off, replaced or strange must be a sentence (`Unfinished`, `BadInput`) and never other numbers or another error.
"""

import pathlib
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from beamtide.formats import confinement
from beamtide.formats.base import Extent, FileFormat, OpensMore, Unfinished
from beamtide.testing.format_sample import Arrays, FormatSample, expect, facts, open_files, same, watched

NOWHERE = "no/such/thing"
STRANGE = (b"\0" * 4096, b"not what you look for\n" * 50, bytes(random.Random(0).randrange(256) for _ in range(5000)))  # noqa: S311
CUTS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
EVERY_BYTE = 100
"""How many bytes of the end are taken away one by one."""
PARTS = 12


def check_format(
    known: FileFormat,
    sample: pathlib.Path,
    frames: int,
    options: Mapping[str, str] | None = None,
    wrong: Sequence[Mapping[str, str]] = (),
) -> None:
    """Try a format on copies of a good file with so many frames; AssertionError says what the engine cannot rely on.

    `sample` is copied with the folder that it lies in; `wrong` are options with which the same file must be refused.
    """
    with tempfile.TemporaryDirectory(prefix="beamtide-format-") as name:
        folder = pathlib.Path(name).resolve() / "sample"
        shutil.copytree(sample.resolve().parent, folder)
        case = FormatSample(known, sample.resolve(), folder / sample.name, frames, dict(options or {}), wrong)
        for check in CHECKS:
            check(case)


def counts_frames(case: FormatSample) -> None:
    """`probe` says how many frames there are, each time the same."""
    for _ in range(2):
        found = case.known.probe(case.path, case.options)
        expect(
            isinstance(found, Extent) and found.frames == case.frames, f"probe says {found}, the file holds {case.frames} frames"
        )


def has_one_row_per_frame(case: FormatSample) -> None:
    """`read` returns named arrays of numbers whose first axis is the frame."""
    found = case.whole()
    expect(bool(found), "read returns no array")
    for name, array in found.items():
        expect(array.ndim > 0 and len(array) == case.frames, f"{name!r} has shape {array.shape} for {case.frames} frames")
        expect(array.dtype.kind in "biufc", f"{name!r} holds {array.dtype}, which are no numbers")


def reads_parts_of_the_whole(case: FormatSample) -> None:
    """Any frames are those of the whole; what a caller does to them changes nothing for the next one."""
    whole, chance = case.whole(), random.Random(case.frames)  # noqa: S311
    parts = {(0, 1), (case.frames - 1, case.frames), (0, case.frames)}
    for _ in range(PARTS):
        first, last = sorted(chance.sample(range(case.frames + 1), 2))
        parts.add((first, last))
    for first, last in sorted(parts):
        found = case.part(first, last)
        expect(same(found, whole, first, last), f"read of frames {first} to {last} is not that part of the whole")
        for array in found.values():
            if array.flags.writeable:
                array[...] = 0
    expect(same(case.whole(), whole, 0, case.frames), "what a caller wrote into its arrays was there for the next one")


def refuses_frames_that_are_not_there(case: FormatSample) -> None:
    """A file that was written again may be shorter than it was when its tasks were made."""
    for first, last in ((0, case.frames + 1), (case.frames, case.frames + 1)):
        what = f"read of frames {first} to {last} of {case.frames}"
        expect(case.outcome(partial(case.part, first, last), what) is None, f"{what}: raise BadInput")


def waits_for_files_that_are_not_there(case: FormatSample) -> None:
    """What is not there, or is still empty, may come: Unfinished. A file in which no frame is finished may count 0."""
    gone = case.beside(b"")
    gone.unlink()
    for path in (gone, case.beside(b"")):
        try:
            found = case.known.probe(path, case.options).frames
        except Unfinished:
            continue
        except Exception as error:
            raise AssertionError(f"{_state(path)}: raise Unfinished, not {type(error).__name__}: {error}") from error
        expect(found == 0 and path.exists(), f"{_state(path)}: raise Unfinished; probe says {found} frames")


def counts_only_what_is_finished(case: FormatSample) -> None:
    """A file that is still being written is refused, or counts the frames that are whole; those are read as they will be."""
    content, whole, before = case.path.read_bytes(), case.whole(), 0
    sizes = {*(int(len(content) * part) for part in CUTS), *range(max(0, len(content) - EVERY_BYTE), len(content))}
    for size in sorted(sizes):
        path = case.beside(content[:size])
        if not (found := case.count(path)):
            continue
        what = f"the first {size} of {len(content)} bytes"
        expect(before <= found <= case.frames, f"{what}: probe says {found} frames, with fewer bytes {before}")
        before = found
        part = _read_or_refuse(case, found, path)
        expect(part is None or same(part, whole, 0, found), f"{what}: {found} frames are read otherwise than from the whole file")


def notices_a_file_that_became_shorter(case: FormatSample) -> None:
    """Frames that were there when they were counted, and are not any more, are refused."""
    content, whole = case.path.read_bytes(), case.whole()
    for part in CUTS:
        path = case.beside(content)
        case.known.probe(path, case.options)
        path.write_bytes(content[: int(len(content) * part)])
        found = _read_or_refuse(case, case.frames, path)
        expect(
            found is None or same(found, whole, 0, case.frames), f"cut to {part:.0%} after it was counted, it gives other frames"
        )


def refuses_what_it_does_not_understand(case: FormatSample) -> None:
    """Content of another kind, and options that do not fit the file, are sentences."""
    for content in STRANGE:
        case.count(case.beside(content))
    spoilt = [{}, *({**case.options, name: NOWHERE} for name in case.options)]
    for options in (*spoilt, *case.wrong):
        found = case.outcome(partial(case.known.probe, case.path, options), f"options {dict(options)}")
        expect(found is None or options in spoilt, f"options {dict(options)} must be refused, and probe says {found}")


def tells_the_shape_or_nothing(case: FormatSample) -> None:
    """`shape_of` is asked for any file, also one that is cut off."""
    for path in (case.path, case.beside(case.path.read_bytes()[:100]), case.beside(b"")):
        shape = case.outcome(partial(case.known.shape_of, path), "shape_of")
        expect(shape is None or all(length > 0 for length in shape), f"shape_of says {shape}; return (slow, fast) or None")


def leaves_nothing_open_and_nothing_behind(case: FormatSample) -> None:
    """No file stays open between two calls, and nothing is written."""
    path = case.beside(case.origin.read_bytes())
    before = facts(path.parent)
    kept = case.known.read(path, 0, case.frames, case.options)
    case.known.probe(path, case.options)
    for content in (b"", path.read_bytes()[: path.stat().st_size // 2]):
        case.count(case.beside(content))
    held = [link for link in open_files() if link.is_relative_to(case.path.parents[1])]
    expect(not held, f"{', '.join(str(link) for link in held)} is still open after the call; arrays held: {', '.join(kept)}")
    expect(facts(path.parent) == before, "the folder of the file is not as it was: a format must not write")


def opens_only_what_it_names(case: FormatSample) -> None:
    """Files beside the one that a task names are told by `beside`, so that it is known where they lie before they are opened."""
    more = case.known.beside(case.path, case.options) if isinstance(case.known, OpensMore) else ()
    confinement.before_reading(case.known, case.path, case.options, case.path.parent)
    with watched(case.path.parent) as opened:
        case.known.probe(case.path, case.options)
        case.whole()
    odd = sorted({str(path) for path in opened} - {str(path) for path in (case.path, *more)})
    expect(not odd, f"{', '.join(odd)} was opened, and `beside` does not name it")


CHECKS: tuple[Callable[[FormatSample], None], ...] = (
    counts_frames,
    has_one_row_per_frame,
    reads_parts_of_the_whole,
    refuses_frames_that_are_not_there,
    waits_for_files_that_are_not_there,
    counts_only_what_is_finished,
    notices_a_file_that_became_shorter,
    refuses_what_it_does_not_understand,
    tells_the_shape_or_nothing,
    leaves_nothing_open_and_nothing_behind,
    opens_only_what_it_names,
)


def _read_or_refuse(case: FormatSample, frames: int, path: pathlib.Path) -> Arrays | None:
    """Return frames of a file, None where they are refused; a worker makes a sentence of OSError by itself."""

    def read() -> Arrays | None:
        try:
            return case.part(0, frames, path)
        except OSError:
            return None

    found: Arrays | None = case.outcome(read, f"read of {path.name}")
    return found


def _state(path: pathlib.Path) -> str:
    return "an empty file" if path.exists() else "a file that is not there"
