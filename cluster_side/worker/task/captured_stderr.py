"""What a worker wrote to its standard error output: kept in a file without a name, so that its end can be told with a failure.

The file takes the place of file descriptor 2, also for libraries in C and for the words of a dying process. The parent reads it
when its child is gone, and passes all of it on to its own standard error output, which is the log of the job.
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
    """Return the file for a child that is about to be born."""
    return tempfile.TemporaryFile(buffering=0)


def adopt(words: BinaryIO) -> None:
    """Be the child: write to that file from now on."""
    os.dup2(words.fileno(), STDERR)


def tail(descriptor: int) -> str:
    """Return the end of what was written; "" where this process writes to something that cannot be read back."""
    sys.stderr.flush()
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, MOST, max(0, size - MOST)).decode(errors="replace")
    except OSError:
        return ""


def pass_on(words: BinaryIO) -> None:
    """Copy all of it to the log of the job, and close it."""
    words.seek(0)
    shutil.copyfileobj(words, sys.stderr.buffer)
    sys.stderr.flush()
    words.close()


def cause_of_death(status: int) -> str:
    """Say how a process died; "" for exit code 0."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"exited with code {code}" if code else ""
