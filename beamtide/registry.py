"""Finds plug-ins by entry point: ours, and those of any distribution that is installed beside us.

A group "formats" is the entry points "beamtide.formats", and so on. What a plug-in must have is looked at when it is loaded, so
that a mistake of its author is a sentence with the name of the distribution, and not an error somewhere else.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any

from beamtide.errors import BadInput, BeamtideError

GROUPS: dict[str, tuple[str, ...]] = {
    "formats": ("probe", "read", "shape_of"),
    "modalities": ("check", "load", "settings"),
    "launchers": ("submit", "look", "cancel", "settings"),
    "writers": ("__call__",),
    "components": ("build", "links", "settings", "check"),
}
"""The groups that `beamtide formats` lists, and what each plug-in of a group must have."""


def names(group: str) -> tuple[str, ...]:
    """Return the names registered in a group, sorted."""
    return tuple(sorted({point.name for point in points(group)}))


def points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group. A distribution whose metadata cannot be read, whosever it is, adds none."""
    try:
        return tuple(entry_points(group=f"beamtide.{group}"))
    except Exception:  # of one line that is wrong in any distribution installed here, the library makes an error for all
        first = {one.name: one for one in reversed(list(distributions()))}  # of several of one name, Python uses the first
        found = (point for distribution in first.values() for point in _of(distribution))
        return tuple(point for point in found if point.group == f"beamtide.{group}")


def problems() -> list[str]:
    """Load every plug-in; return a sentence for each that cannot be used."""
    found = []
    for group in GROUPS:
        for name in names(group):
            try:
                find(group, name)
            except BadInput as error:
                found.append(str(error))
    return found


def _of(distribution: Distribution) -> tuple[EntryPoint, ...]:
    try:
        return tuple(distribution.entry_points)
    except Exception:
        return ()


@functools.cache  # searching all installed packages takes milliseconds; forked workers inherit the cache
def find(group: str, name: str) -> Any:
    """Load one plug-in; BadInput lists what there is, or says what is wrong with it and whose it is."""
    given = [point for point in points(group) if point.name == name]
    if not given:
        raise BadInput(f"{name!r} is not among the {group}; known: {', '.join(names(group)) or 'none'}")
    if len({point.value for point in given}) > 1:
        raise BadInput(f"{name!r} is given by several of the {group}: {', '.join(map(_whose, given))}; uninstall all but one")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints when it is imported is no part of our --json
            found = given[0].load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        said = " ".join(str(error).split())
        raise BadInput(f"{_whose(given[0])} of the {group} does not load: {type(error).__name__}: {said}") from error
    needs = GROUPS.get(group, ())
    if missing := [needed for needed in needs if not hasattr(found, needed)]:
        raise BadInput(f"{_whose(given[0])} of the {group} is {type(found).__name__} without {missing[0]!r}; correct it there")
    if "settings" in needs and not hasattr(found.settings, "model_validate"):
        raise BadInput(f"{_whose(given[0])} of the {group} has 'settings' that are not a Pydantic model; correct it there")
    return found


def asked(group: str, name: str, question: Callable[[], None]) -> None:
    """Ask a plug-in something; what it raises by mistake becomes BadInput that says whose it is."""
    try:
        question()
    except BeamtideError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's function does
        point = next(point for point in points(group) if point.name == name)
        said = " ".join(str(error).split())
        raise BadInput(f"{_whose(point)} of the {group} raised {type(error).__name__}: {said}; correct it there") from error


def _whose(point: EntryPoint) -> str:
    """Return name, place and distribution of an entry point."""
    owner = f", of the distribution {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.name!r} ({point.value}{owner})"
