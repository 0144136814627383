"""Finds plug-ins by entry point: modalities, file formats, commands."""

import functools
from importlib.metadata import entry_points
from typing import Any

from beamtide.errors import BadInput


def names(group: str) -> tuple[str, ...]:
    """Return the names registered in a group, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=f"beamtide.{group}")}))


@functools.cache  # searching all installed packages takes milliseconds; forked workers inherit the cache
def find(group: str, name: str) -> Any:
    """Load one plug-in; BadInput lists what there is."""
    for point in entry_points(group=f"beamtide.{group}", name=name):
        return point.load()
    raise BadInput(f"{name!r} is not among the {group}; known: {', '.join(names(group)) or 'none'}")
