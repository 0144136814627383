"""Columns of numbers in a text, as instruments write them: lines of a header, a heading with names and units, lines of numbers.

The numbers begin with the first line that holds nothing but at least two numbers; the line before it is the heading if it has as
many names. Separators are tab, semicolon, comma or blanks. A unit stands behind a name in brackets: "Position 1 (pm)". An empty
field is NaN. An incomplete last line is left out. Refused: decimal commas (they look like separators), and lines that do not fit.
Pure.
"""

import io
import itertools
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished

SEPARATORS = ("\t", ";", ",", None)
COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
UNIT = re.compile(r"^(.*?)\s*[(\[]([^()\[\]]*)[)\]]$")


@dataclass(frozen=True, slots=True)
class ColumnTable:
    """Columns (samples,) by name, and the units that their file states."""

    columns: dict[str, NDArray[np.float64]]
    units: dict[str, str]


def table(text: str) -> ColumnTable:
    """Return the columns of a text; Unfinished as long as there are no numbers, BadInput names the line that does not fit."""
    lines = text.split("\n")[:-1]
    begin, separator = _begin(lines)
    heading = _words(lines[begin - 1].lstrip("#% "), separator) if begin else []
    width = len(_words(lines[begin], separator))
    if len(heading) != width:
        heading = [str(number + 1) for number in range(width)]
    numbers = _numbers(lines, begin, separator, width)
    named = [UNIT.match(one.strip(' "')) for one in heading]
    names = [found[1].strip(' "') if found else one.strip(' "') for found, one in zip(named, heading, strict=True)]
    if len(set(names)) < width:
        raise BadInput(f"line {begin}: the heading has a name twice ({', '.join(names)})")
    units = {name: found[2].strip() for found, name in zip(named, names, strict=True) if found and found[2].strip()}
    return ColumnTable({name: numbers[:, number] for number, name in enumerate(names)}, units)


def _begin(lines: list[str]) -> tuple[int, str | None]:
    """Return the number of the first line of numbers, and what separates them."""
    for number, line in enumerate(lines):
        for separator in SEPARATORS:
            words = _words(line, separator)
            if len(words) > 1 and all(COMMA.fullmatch(word) or _is_number(word) for word in words) and words[0]:
                if any(COMMA.fullmatch(word) for word in words):
                    raise BadInput(f"line {number + 1} has decimal commas ({line.strip()}); export it with decimal points")
                return number, separator
    raise Unfinished("it holds no line of numbers (yet)")


def _numbers(lines: list[str], begin: int, separator: str | None, width: int) -> NDArray[np.float64]:
    try:
        found = np.loadtxt(io.StringIO("\n".join(lines[begin:])), delimiter=separator, ndmin=2, comments=None)
    except ValueError:
        rows = []
        for number, line in enumerate(itertools.islice(lines, begin, None), begin + 1):
            if line.strip():
                rows.append(_row(_words(line, separator), number, width))
        found = np.array(rows, float)
    if found.shape[1] != width:
        raise BadInput(f"line {begin + 1} has {width} numbers, later ones {found.shape[1]}")
    return found


def _row(words: list[str], number: int, width: int) -> list[float]:
    if len(words) != width or not all(map(_is_number, words)):
        raise BadInput(f"line {number} is not {width} numbers: {' '.join(words)[:80]}")
    return [float(word or "nan") for word in words]


def _words(line: str, separator: str | None) -> list[str]:
    return [word.strip() for word in line.rstrip("\r").split(separator)] if line.strip() else []


def _is_number(word: str) -> bool:
    try:
        float(word or "nan")
    except ValueError:
        return False
    return "_" not in word  # Python's own way to write long numbers, nobody else's
