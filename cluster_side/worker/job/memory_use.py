"""How much memory a process takes, and how much this machine has: from /proc."""

import os
import pathlib

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb(pid: int) -> int:
    """Return the memory of a process in MiB, with what it shares; 0 once it is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE >> 20
    except (OSError, IndexError):
        return 0


def machine_mb() -> int:
    """Return the memory of this machine in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE >> 20
