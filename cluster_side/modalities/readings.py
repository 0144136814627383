"""Units that files state, and those that the settings want: the file's are obeyed, or the task is refused. Pure, and light."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beamtide import units
from beamtide.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME = 1e-6
"""Relative difference up to which two scales are one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the settings take a column of a file."""

    unit: str
    """What the column becomes."""
    scale: float | None = None
    """What one unit of the column is, in `unit`; None: the settings do not say, so it is the column's own unit."""
    key: str = ""
    """The key of the settings that says it."""


def in_units(
    reads: Mapping[str, Reading], arrays: "Mapping[str, NDArray[Any]]", stated: Mapping[str, str]
) -> "dict[str, NDArray[Any]]":
    """Return columns in the units that are wanted, where their files state others; BadInput where the two contradict."""
    found = dict(arrays)
    for name, wanted in reads.items():
        if name in found and stated.get(name):
            times = _times(name, stated[name], wanted)
            found[name] = found[name] if times == 1.0 else found[name] * times
    return found


def _times(name: str, stated: str, wanted: Reading) -> float:
    """Return by what a column must be multiplied that a file gives in another unit than the settings want it in."""
    said = f"the file gives {name!r} in {stated}, and the settings want {wanted.unit}"
    try:
        factor = units.factor(stated, wanted.unit)
    except BadInput as error:
        if wanted.scale is not None:  # a person says what one of these is
            return 1.0
        raise BadInput(f"{said}: {error}; correct the unit, or say by {wanted.key or 'a scale'} what one {stated} is") from error
    if wanted.scale is None:
        return factor
    if factor not in (1.0, wanted.scale) and abs(factor / wanted.scale - 1.0) > SAME:
        raise BadInput(
            f"{said}: 1 {stated} is {factor:g} {wanted.unit}, but {wanted.key} says {wanted.scale:g}; leave {wanted.key} out, or "
            f"set units: {stated} and {wanted.key} in that"
        )
    return 1.0
