"""The files of one product: a live one while the scan runs, then those that the pipeline file wants (`write`).

Names: what the pipeline file asks for now gets `<pipeline>.h5` and so on, superseded settings lie beside it under their digest
(see `names`, and `beamtide.results.layout`). Whatever the formats are, a whole
result file is drawn first, under a hidden name; every writer takes from it what it needs, and its files get their names when it
has returned. The result file itself gets its name last, so one that is there has its pictures; the record of all comes after it.
A writer that fails stops no other: what can never succeed is noted with its reason, everything else is tried again.
"""

import contextlib
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from beamline_side.writers.atomic import discard, ensure_room, plainly
from beamline_side.writers.hdf5 import LiveFile
from beamline_side.writers.names import product_at, result_of
from beamline_side.writers.nexus import write_result
from beamline_side.writers.outputs import HiddenOutputs
from beamline_side.writers.product import Batch, Content
from beamline_side.writers.written import Written, keep, record_of, stems
from beamtide import registry
from beamtide.errors import BadInput, BeamtideError, Broken
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import Product
from beamtide.results import layout
from beamtide.writers import FinishedProduct, FormatWriter

RESULT = "hdf5"
"""The format that is also written while a scan runs, and that gets its name last."""
TRIES = 3
"""How often a writer may stumble over a product (not over its disk) before it is believed that it always will."""


@dataclass(slots=True)
class Outcome:
    """What came of one attempt: writer -> why it can never write this product, or what went wrong this time."""

    result: pathlib.Path
    """Where the result file is, or would be."""
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)


class ProductFiles:
    """Writes one product; `taken` are live files of the same scan that are in use for other settings."""

    def __init__(
        self,
        processed: pathlib.Path,
        product: Product,
        scan: ScanState,
        formats: tuple[str, ...],
        taken: frozenset[pathlib.Path] = frozenset(),
    ) -> None:
        self.product, self.formats = product, tuple(dict.fromkeys(formats))
        self._processed, self._scan = processed, scan
        self._names = [name for name in _names(layout.live_file, processed, product) if name not in taken]
        self._live: LiveFile | None = None
        self._stumbled: Counter[str] = Counter()
        self.live = self._names[0]
        self.cursor = 0
        """The first index that the live file does not have yet."""

    @property
    def grows(self) -> bool:
        """Whether there is a file that grows while the scan runs."""
        return RESULT in self.formats

    def append(self, results: list[Batch], following: int) -> None:
        """Add results to the live file; `following` is the index after them."""
        size = sum(array.nbytes for _, arrays in results for array in arrays.values())
        ensure_room(self.live.parent, 2 * size)
        with plainly(self.live):
            if self._live is None and any(request.datasets for request, _ in results):
                self._live = LiveFile(self.live, self.product, self._scan, results)
            if self._live is not None:
                self._live.append(results, following)
        self.cursor = following

    def write(self, content: Content, find: Callable[[str], FormatWriter] | None = None) -> Outcome:
        """Write what is not written yet, in place of what is older. Raises what comes in the way of all writers."""
        stem = stem_of(self._processed, self.product)
        ensure_room(stem.parent, self.live.stat().st_size if self.live.exists() else 0)
        outcome, record = Outcome(result_of(stem)), _record(stem, content)
        files = dict(record.files)
        with _drafted(stem, content) as told:
            drawn = _mark(told.file)
            for name in sorted(self.formats, key=lambda name: name == RESULT):
                if name in files:
                    continue
                taken = {path: f"the writer {other}" for other, paths in files.items() for path in paths}
                if name != RESULT and RESULT in self.formats:  # it comes last, and nobody takes its name before
                    taken[outcome.result.name] = f"the writer {RESULT}"
                try:
                    files[name] = _made(find or registered, HiddenOutputs(name, stem, taken), told)
                except Exception as error:
                    self._note(outcome, name, error)
                if _mark(told.file) != drawn:  # it would get its name next
                    raise BadInput(f"the writer {name} changed the result file, which is only to read; correct it there")
        keep(stem, msgspec.structs.replace(record, files=files, refused=outcome.refused))
        return outcome

    def drop(self) -> None:
        """Delete the live file, also one that an earlier writer left; never raises."""
        if self._live is not None:
            self._live.drop()
            self._live = None
        for name in self._names:
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)

    def _note(self, outcome: Outcome, name: str, error: Exception) -> None:
        """Note what a writer raised, and whether to try it again. Raises `Broken`: this process can write nothing any more."""
        if isinstance(error, Broken):
            raise error
        self._stumbled[name] += not isinstance(error, OSError)
        if isinstance(error, BadInput) or self._stumbled[name] >= TRIES:
            outcome.refused[name] = sentence(error)
        else:
            outcome.failed[name] = error


def registered(name: str) -> FormatWriter:
    """Return an installed writer."""
    found: FormatWriter = registry.find("writers", name)
    return found


def sentence(error: Exception) -> str:
    """Return what went wrong as one line, our own errors and those of the disk as they are."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BeamtideError | OSError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def stem_of(processed: pathlib.Path, product: Product) -> pathlib.Path:
    """Return the path of all files of a product, without endings: the plain name, unless another product has that."""
    plain, beside = stems(processed, product)
    there = product_at(plain)
    return plain if there == product or (there is None and not result_of(plain).exists()) else beside


def _made(find: Callable[[str], FormatWriter], out: HiddenOutputs, told: FinishedProduct) -> tuple[str, ...]:
    """Let a writer do its work; return what it made, under its final names."""
    try:
        with plainly(told.file):
            find(out.name)(told, out)
            return out.publish()
    except SystemExit as error:  # a library that believes that it is a program; our process is not its own
        raise RuntimeError(f"it wanted to end the process, with code {error.code}") from error
    finally:
        out.discard()


def _record(stem: pathlib.Path, content: Content) -> Written:
    """Return the record that begins with what was written of exactly this content before, and is still there."""
    scan, known = content.scan, record_of(stem)
    drawn_with = content.corrections, content.positions_settings
    fresh = Written(
        product=content.product,
        started=scan.started,
        points=scan.points,
        corrections=content.corrections,
        positions=content.positions_settings,
    )
    if known is None or known.product != content.product or not known.is_of(scan, *drawn_with):
        return fresh
    gone = known.missing(stem.parent, known.files)
    return msgspec.structs.replace(fresh, files={name: paths for name, paths in known.files.items() if name not in gone})


@contextlib.contextmanager
def _drafted(stem: pathlib.Path, content: Content) -> Iterator[FinishedProduct]:
    """Draw the whole result file under a hidden name, for as long as writers work."""
    draft = stem.with_name(f".draft-{stem.name}.h5")
    try:
        with plainly(draft):
            draft.unlink(missing_ok=True)
            maps = tuple(write_result(draft, content))
    except BaseException:
        discard(draft)
        raise
    try:
        yield FinishedProduct(
            content.product,
            content.modality,
            content.scan,
            draft,
            maps,
            content.positions,
            content.document,
            content.files,
            content.corrections,
        )
    finally:
        draft.unlink(missing_ok=True)


def _mark(path: pathlib.Path) -> tuple[int, int, int] | None:
    """Return what is different when a file was written to, or is another one; None if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        return facts.st_ino, facts.st_size, facts.st_mtime_ns
    return None


def _names(rule: layout.FileRule, processed: pathlib.Path, product: Product) -> tuple[pathlib.Path, pathlib.Path]:
    plain = rule(processed, product.scan, product.pipeline)
    return plain, rule(processed, product.scan, product.pipeline, product.settings)
