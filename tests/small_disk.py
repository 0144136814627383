"""A real file system with little room, for tests of full disks."""

import pathlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder: pathlib.Path, mib: int) -> Iterator[pathlib.Path]:
    """Mount a disk of so many MiB at a new folder; skip where we may not."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk needs root: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
