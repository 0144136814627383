"""Natural order of names: file 10 comes after file 9."""

import re


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which numbers in names count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
