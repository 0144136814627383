"""What a worker wrote to its standard error output: kept in an unnamed file, so that a failure can be reported with its end.

The file takes the place of file descriptor 2, also for libraries in C and for the last output of a process that dies. The parent
reads it when the process is gone, and copies all of it to its own standard error output, which is the log of the job.
"""

import os
import shutil
import signal
import sys
import tempfile
from typing import BinaryIO

MOST = 8192
"""Bytes that go with a failure."""
STDERR = 2


def begin() -> BinaryIO:
    """Return the file for a process that is about to be forked."""
    return tempfile.TemporaryFile(buffering=0)


def adopt(stderr: BinaryIO) -> None:
    """In the forked process: write to that file from now on."""
    os.dup2(stderr.fileno(), STDERR)


def tail(descriptor: int) -> str:
    """Return the end of what was written; "" where this process writes to something that cannot be read back."""
    sys.stderr.flush()
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, MOST, max(0, size - MOST)).decode(errors="replace")
    except OSError:
        return ""


def pass_on(stderr: BinaryIO) -> None:
    """Copy all of it to the log of the job, and close it."""
    stderr.seek(0)
    shutil.copyfileobj(stderr, sys.stderr.buffer)
    sys.stderr.flush()
    stderr.close()


def cause_of_death(status: int) -> str:
    """Say how a process died; "" for exit code 0."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"exited with code {code}" if code else ""
