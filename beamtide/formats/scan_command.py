"""From a scan command, as Sardana's macros write it, to the shape of the scan.

A command is a macro name, then `motor start stop intervals` for each axis, then the exposure and other words. An axis of n
intervals has n + 1 points.
"""

from itertools import takewhile

MAX_AXES = 3


def points_of(command: str) -> tuple[int, ...] | None:
    """Return the points of each axis in the order of the command; None when it is not a mesh or a line."""
    words = command.split()[1:]
    groups = [words[at : at + 4] for at in range(0, 4 * MAX_AXES, 4)]
    axes = list(takewhile(_is_axis, groups))
    return tuple(int(axis[3]) + 1 for axis in axes) or None


def _is_axis(words: list[str]) -> bool:
    return len(words) == 4 and not _number(words[0]) and _number(words[1]) and _number(words[2]) and words[3].isdecimal()


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
