"""Where one writer puts its files: hidden paths that it fills, and that get their names when it has returned.

Theory: whatever a writer from outside does, a file is there as a whole or not at all, because it never has the name under which
people look for it. All paths of a writer are kept until it has returned; then each is synced and renamed. A file takes the place
of an older one in one rename. A folder cannot, so the older one is renamed away first: whoever dies in between leaves neither,
and the record (`written`) tells the next attempt that it is missing.
"""

import contextlib
import os
import pathlib
import re
import shutil
import stat
from collections.abc import Iterator, Mapping

from beamline_side.writers.atomic import discard, sync
from beamtide.errors import BadInput
from beamtide.results import layout

LIVE = ".live.h5"


class HiddenOutputs:
    """The paths that the writer `name` asked for. `stem` is the path of all files of the product, without their endings.

    `taken` are the names that other writers of the product have: path below the folder of the scan -> writer.
    """

    def __init__(self, name: str, stem: pathlib.Path, taken: Mapping[str, str]) -> None:
        self.name, self._stem, self._taken = name, stem, taken
        self._targets: dict[str, pathlib.Path] = {}

    def path(self, suffix: str, folder: str = "") -> pathlib.Path:
        """Return a hidden path to make, as a file or as a folder; see `beamtide.writers.Outputs`."""
        ending = "".join(pathlib.PurePath(f"x{plain(suffix)}").suffixes[-1:])
        beginning = f"{self._stem.name}{plain(suffix).removesuffix(ending)}"
        where = self._stem.parent / layout.checked(folder) if folder else self._stem.parent
        name = self._relative(where / f"{beginning}{ending}")
        number = 1
        while name in self._targets:  # two names that differ only in letters that no file name has
            number += 1
            name = self._relative(where / f"{beginning}_{number}{ending}")
        if name in self._taken or name.endswith(LIVE):
            whose = self._taken.get(name, "the file that grows while a scan runs")
            raise BadInput(f"the writer {self.name} wants to write {name}, which is for {whose}; it needs another ending")
        target = self._stem.parent / name
        part = _hidden(target)
        part.parent.mkdir(parents=True, exist_ok=True)
        remove(part)
        self._targets[name] = target
        return part

    def publish(self) -> tuple[str, ...]:
        """Give everything its name, synced; return the names, below the folder of the scan. BadInput: something was not made."""
        for name, target in self._targets.items():
            if not os.path.lexists(_hidden(target)):
                raise BadInput(f"the writer {self.name} asked for {name} and did not make it")
        for target in self._targets.values():
            _sync_tree(_hidden(target))
        for target in self._targets.values():
            _rename(_hidden(target), target)
        for folder in {target.parent for target in self._targets.values()}:
            sync(folder)
        return tuple(self._targets)

    def discard(self) -> None:
        """Remove what has no name yet; never raises."""
        for target in self._targets.values():
            remove(_hidden(target))

    def _relative(self, path: pathlib.Path) -> str:
        return path.relative_to(self._stem.parent).as_posix()


def plain(text: str) -> str:
    """Return a text with "_" for every letter that does not suit a file name."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", text)


def remove(path: pathlib.Path) -> None:
    """Remove a file, a link or a folder with all that is in it; never raises."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        discard(path)


def _hidden(target: pathlib.Path) -> pathlib.Path:
    """Return the name under which something is made: with the same ending, since libraries go by that."""
    return target.with_name(f".part-{target.name}")


def _rename(part: pathlib.Path, target: pathlib.Path) -> None:
    if os.path.lexists(target) and (part.is_dir() or target.is_dir()):
        old = target.with_name(f".{target.name}.old")
        remove(old)
        target.rename(old)
        part.rename(target)
        remove(old)
        return
    part.replace(target)


def _sync_tree(path: pathlib.Path) -> None:
    for one in _below(path):
        with contextlib.suppress(FileNotFoundError):  # a library may tidy up behind itself
            mode = one.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to open a named pipe would wait for ever
                what = "a link" if stat.S_ISLNK(mode) else "a pipe, socket or device"
                raise BadInput(f"{one.relative_to(path.parent)} is {what}; a writer makes files and folders")
            sync(one)


def _below(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield whatever lies there, the innermost first, itself last."""
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path, topdown=False):
            yield from (pathlib.Path(folder, name) for name in (*files, *folders))
    yield path
