"""Loads the compiled loops of the `.c` files here; compiles them once per kind of processor.

On x86 there are two kinds, those with AVX2 (all servers since 2015) and those without, so that what one machine compiled serves
all others of its kind; on other machines the compiler uses all that the machine has. The library is found by the content of its
source, the compiler's options and the kind, so a changed source makes another file; it is written under a temporary name and
renamed, so any number of processes may do it at once. It lies beside this file (an image gets both with `python -m
cluster_side.modalities.native`), or below the user's cache folder where that cannot be written. Without a C compiler there is no
library: callers have the same loops in NumPy, which give the same numbers. Why not numba: docs/adr/0025-compiled-loops.md.
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
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SOURCES = sorted(pathlib.Path(__file__).parent.glob("*.[ch]"))
BUILT = pathlib.Path(__file__).with_name("_built")
OPTIONS = ("-O3", "-funroll-loops", "-ffp-contract=fast", "-std=c99", "-shared", "-fPIC")
X86 = {"x86-avx2": ("-mavx2", "-mfma", "-mbmi2"), "x86": ()}
"""Kinds of x86 processors and what the compiler is told; said flag by flag, for compilers of before 2021."""
LINE = 64
"""Bytes of a line of the processor's cache."""
PATIENCE = 120.0


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled loops, or None where they cannot be compiled."""
    for folder in _folders():
        try:
            if (file := built(_kind(), folder)) is not None:
                return ctypes.CDLL(str(file))
        except OSError:
            continue  # a folder that we may not read, or from which nothing may be executed
    return None


def built(kind: str, folder: pathlib.Path) -> pathlib.Path | None:
    """Return the library for a kind of processor in a folder, compiled if it is not there; None if it cannot be."""
    options = (*OPTIONS, *X86.get(kind, ("-march=native",)))
    key = hashlib.sha256("\0".join((*(source.read_text() for source in SOURCES), *options, kind)).encode()).hexdigest()[:16]
    file = folder / f"kernels-{key}.so"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    return file if file.is_file() or (compiler and _compiled((compiler, *options), file)) else None


def kinds() -> tuple[str, ...]:
    """Return the kinds of processors that a library can be compiled for here."""
    return tuple(X86) if platform.machine() in {"x86_64", "AMD64"} else (_kind(),)


def pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    """Return where a C-contiguous array lies; the caller keeps it alive. C reads numbers in this machine's byte order only."""
    assert array.flags.c_contiguous
    assert array.dtype.isnative
    return ctypes.c_void_p(array.ctypes.data)


def room(shape: int | tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
    """Return zeros that begin on a line of the processor's cache, where loops are up to a third quicker."""
    kind = np.dtype(kind)
    wanted = int(np.prod(shape)) * kind.itemsize
    memory = np.zeros(wanted + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + wanted].view(kind).reshape(shape)


def pointers(*arrays: NDArray[Any]) -> list[ctypes.c_void_p]:
    """Return where each of these arrays lies."""
    return [pointer(array) for array in arrays]


def rows(spectra: NDArray[Any]) -> NDArray[np.float32]:
    """Return spectra in single precision whose channels lie side by side; the spectra themselves may lie further apart."""
    fits = spectra.dtype == np.float32 and spectra.strides[1] == spectra.itemsize
    return spectra if fits else np.ascontiguousarray(spectra, dtype=np.float32)


def size(number: int) -> ctypes.c_long:
    """Return a length as C wants it."""
    return ctypes.c_long(number)


def _folders() -> tuple[pathlib.Path, ...]:
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return BUILT, home / "beamtide"


def _kind() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    if platform.machine() in {"x86_64", "AMD64"}:
        return "x86-avx2" if {"avx2", "fma", "bmi2"} <= set(flags.split()) else "x86"
    return f"{platform.machine()} {flags}"


def _compiled(command: tuple[str, ...], file: pathlib.Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = pathlib.Path(folder) / file.name
            whole = [*command, "-o", str(made), *(str(source) for source in SOURCES if source.suffix == ".c"), "-lm"]
            if subprocess.run(whole, capture_output=True, timeout=PATIENCE, check=False).returncode:
                return False
            made.replace(file)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True
