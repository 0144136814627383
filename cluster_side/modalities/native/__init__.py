"""Loads the compiled loops of `kernels.c`; compiles them once for this processor where that has not been done yet.

The library is found by the content of its source, the compiler's options and the processor, so a changed source or another
machine makes another file; it is written beside and renamed, so any number of processes may do it at once. It lies beside this
file (an image gets it with `python -m cluster_side.modalities.native`), or below the user's cache folder where that cannot be
written. Without a C compiler there is no library: callers have the same loops in NumPy, which give the same numbers.
Why not numba: docs/adr/0025-compiled-loops.md.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

import numpy as np
from numpy.typing import NDArray

SOURCE = pathlib.Path(__file__).with_name("kernels.c")
BUILT = SOURCE.parent / "_built"
OPTIONS = ("-O3", "-march=native", "-funroll-loops", "-std=c99", "-shared", "-fPIC")
PATIENCE = 120.0


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled loops, or None where they cannot be compiled."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    for folder in _folders():
        file = folder / f"kernels-{_key()}.so"
        try:
            if file.is_file() or (compiler and _compiled(compiler, file)):
                return ctypes.CDLL(str(file))
        except OSError:
            continue  # a folder that we may not read, or from which nothing may be executed
    return None


def pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    """Return where a C-contiguous array lies; the caller keeps it alive."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def size(number: int) -> ctypes.c_long:
    """Return a length as C wants it."""
    return ctypes.c_long(number)


def _folders() -> tuple[pathlib.Path, ...]:
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return BUILT, home / "beamtide"


def _key() -> str:
    return hashlib.sha256("\0".join((SOURCE.read_text(), *OPTIONS, _processor())).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compiled(compiler: str, file: pathlib.Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = pathlib.Path(folder) / file.name
            command = [compiler, *OPTIONS, "-o", str(made), str(SOURCE), "-lm"]
            if subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode:
                return False
            made.replace(file)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True
