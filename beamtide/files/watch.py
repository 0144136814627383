"""Watches the files of one pipeline and scan: which exist, what they hold, and since when nothing has changed."""

import fnmatch
import pathlib
from dataclasses import dataclass, field, replace

from beamtide import registry
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.files.row import FileFact, late_start
from beamtide.formats import confinement
from beamtide.formats.base import FileFormat, OpensMore, Unfinished
from beamtide.formats.natural import natural
from beamtide.messages.tasks import FileOrigin, FileStamp


def members(scan: str, raw: pathlib.Path, match: str) -> tuple[str, ...]:
    """Return the scans that a name joins with "+"; for any other name, or one that has files itself, only that name."""
    stitched = tuple(filter(None, scan.split("+")))
    if len(stitched) < 2 or "{scan}" not in match or any(raw.glob(match.replace("{scan}", scan))):
        return (scan,)
    return stitched


@dataclass(slots=True)
class FileWatch:
    """The files that match a pipeline's pattern. A file is opened again only when it changed, or could not be read before."""

    raw: pathlib.Path
    scan: str
    source: SourceConfig
    changed_at: float = 0.0
    """When something changed last, on the clock of `look`."""
    used: set[str] = field(default_factory=set)
    """The files that tasks were made of."""
    renamed: str = ""
    """Which file that tasks were made of has another name now."""
    _seen: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _facts: dict[str, FileFact] = field(default_factory=dict)

    def look(self, now: float) -> list[FileFact]:
        """Return what is known of all files, in the order of their names; nothing for a source without files."""
        if not self.source.match:
            return []
        known: FileFormat = registry.find("formats", self.source.format)
        found = self._found()
        gone = {fact.stamp.file: name for name, fact in self._facts.items() if name in self.used - found.keys() and fact.stamp}
        for name, part in found.items():
            try:
                info = (self.raw / name).stat()
            except OSError:  # it vanished just now: the next look sees that
                continue
            stamp = (info.st_size, info.st_mtime_ns, info.st_ino)
            if name not in self._facts and stamp in gone:
                self.renamed = f"{gone[stamp]}, of which tasks were made, is called {name} now: give it its name back"
                continue
            if self._seen.get(name) != (*stamp, *self._beside(known, name)):
                self.changed_at = now
            elif not self._facts[name].trouble:
                continue
            self._seen[name] = (*stamp, *self._beside(known, name))
            fact = self._probe(known, name)
            self._facts[name] = self._kept(replace(fact, part=part, stamp=FileStamp(fact.frames, *stamp)))
        for name in self._facts.keys() - found.keys():
            self.changed_at = now if self._seen.pop(name, None) else self.changed_at
            if name not in self.used:
                del self._facts[name]
        return sorted(self._facts.values(), key=lambda fact: (fact.part, natural(fact.path)))

    def _kept(self, fact: FileFact) -> FileFact:
        """Return what is new of a file; one that tasks were made of keeps the frames that it had, whatever became of it.

        So nothing else moves, and the workers of these tasks say what became of it.
        """
        was = self._facts.get(fact.path, fact)
        return was if fact.path in self.used and (fact.trouble or fact.frames < was.frames) else fact

    def recall(self, file: FileOrigin) -> None:
        """Take a file that tasks were made of as it was then, whatever has become of it."""
        own = {key: value for key, value in file.options.items() if self.source.options.get(key) != value}
        frames = max(file.last, file.was.frames if file.was and not own else 0)
        was = self._facts.get(file.path)
        if was is None or was.frames < frames:
            begin = file.first if file.origin + file.first else 0
            self._facts[file.path] = FileFact(
                file.path, frames, part=self._part(file.path), count=file.origin, begin=begin, options=own, stamp=file.was
            )
        self.used.add(file.path)

    def _part(self, name: str) -> tuple[int, int]:
        """Return of which scan a file is that may not be there any more."""
        scans = members(self.scan, self.raw, self.source.match)
        own = (number for number, scan in enumerate(scans) if fnmatch.fnmatch(name, self.source.match.replace("{scan}", scan)))
        return next(own, 0), len(scans)

    def why(self) -> str:
        """Say why no tasks can be made of the files that exist; what no waiting helps comes first."""
        if self.renamed:
            return self.renamed
        found = sorted(self._facts.values(), key=lambda fact: (fact.part, natural(fact.path)))
        return next((fact.trouble for fact in found if fact.wrong), "") or late_start(found, self.source)

    def _found(self) -> dict[str, tuple[int, int]]:
        """Return the names of the files in their order, and of which scan each is."""
        scans = members(self.scan, self.raw, self.source.match)
        found: dict[str, tuple[int, int]] = {}
        for number, scan in enumerate(scans):
            paths = self.raw.glob(self.source.match.replace("{scan}", scan))
            names = sorted((path.relative_to(self.raw).as_posix() for path in paths if path.is_file()), key=natural)
            found |= {name: (number, len(scans)) for name in names}
        return found

    def _beside(self, known: FileFormat, name: str) -> tuple[int, ...]:
        """Return size and time of the files that the format opens with this one."""
        try:
            more = known.beside(self.raw / name, self.source.options) if isinstance(known, OpensMore) else ()
            return tuple(number for one in more for number in (one.stat().st_size, one.stat().st_mtime_ns))
        except (BadInput, OSError):  # probing says what is wrong
            return ()

    def _probe(self, known: FileFormat, name: str) -> FileFact:
        path = self.raw / name
        if not path.resolve().is_relative_to(self.raw.resolve()):
            return FileFact(name, trouble=f"{path} is a link that leaves {self.raw}; copy the file there", wrong=True)
        try:
            confinement.before_reading(known, path, self.source.options, self.raw)
            found = known.probe(path, self.source.options)
            return FileFact(
                name,
                found.frames,
                missing=found.missing,
                count=found.count,
                begin=found.begin,
                shape=found.shape,
                cut=found.cut,
                exact=found.exact,
            )
        except BadInput as error:
            return FileFact(name, trouble=str(error), wrong=not isinstance(error, Unfinished))
