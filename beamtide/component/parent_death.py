"""Ends a process when its parent process ends."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for signal `number` when our parent dies; exit at once if it is already gone (Linux only)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        raise SystemExit(1)
