"""The backend of the engines: an array module and its transforms, NumPy with FFTW or SciPy, or CuPy with cuFFT.

Operators use only the array API standard, plus slices; so the same code runs on both, and is checked against a strict
implementation of the standard. Transforms are unnormalised both ways, because every factor that they would cost is folded into an
array that is multiplied anyway; they may overwrite what they are given.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from beamtide.errors import BadInput

Array: TypeAlias = Any
"""An array of the module in use: complex64 waves, float32 everything else."""
CACHE = 1 << 20
"""Bytes of waves that are worked on at once on a CPU: what stays in its second-level cache (measured: 0.5 to 2 MiB are alike)."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One array module: transforms over the last two axes, ways in and out, and how many bytes of waves make a good block."""

    name: str
    xp: Any
    fft2: Callable[[Array], Array]
    ifft2: Callable[[Array], Array]
    to_host: Callable[[Array], Array]
    block_bytes: int

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as an array of this module, complex64 or float32 unless told otherwise."""
        host = np.asarray(values)
        if dtype is None and host.dtype.kind in "fc":
            dtype = np.complex64 if host.dtype.kind == "c" else np.float32
        return self.xp.asarray(np.ascontiguousarray(host, dtype=dtype))

    def smaller(self, least: int) -> "Backend | None":
        """Return the same with half the block, for a device that had no room; None when a block is at most `least` bytes."""
        return None if self.block_bytes <= least else replace(self, block_bytes=self.block_bytes // 2)


def numpy_backend() -> Backend:
    """Return NumPy, with FFTW where pyFFTW is installed and SciPy's transforms where not."""
    try:
        forward, inverse = _fftw("FFTW_FORWARD"), _fftw("FFTW_BACKWARD")
    except ImportError:
        forward, inverse = _scipy("fft2", "backward"), _scipy("ifft2", "forward")
    return Backend("numpy", np, forward, inverse, np.asarray, CACHE)


def cupy_backend(device: int = 0) -> Backend:
    """Return CuPy on one GPU; BadInput where there is none."""
    try:
        cupy = importlib.import_module("cupy")
        cupy.cuda.Device(device).use()
        free = int(cupy.cuda.Device(device).mem_info[0])
    except ImportError as error:
        raise BadInput("device gpu needs CuPy: pip install 'beamtide[gpu]', or set device: cpu") from error
    except Exception as error:  # the driver's own error types exist only where CuPy does
        raise BadInput(f"device gpu: no GPU can be used here ({error}); ask for one in the job, or set device: cpu") from error
    fft2 = functools.partial(cupy.fft.fft2, axes=(-2, -1))
    ifft2 = functools.partial(cupy.fft.ifft2, axes=(-2, -1), norm="forward")
    return Backend("cupy", cupy, fft2, ifft2, cupy.asnumpy, max(CACHE, free // 16))


def backend(device: str, number: int = 0) -> Backend:
    """Return the backend that the settings ask for; "auto" takes a GPU if there is one."""
    if device == "cpu":
        return numpy_backend()
    if device == "gpu":
        return cupy_backend(number)
    try:
        return cupy_backend(number)
    except BadInput:
        return numpy_backend()


def _scipy(name: str, norm: str) -> Callable[[Array], Array]:
    from scipy import fft

    transform = getattr(fft, name)
    return lambda waves: transform(waves, axes=(-2, -1), norm=norm, overwrite_x=True)


def _fftw(direction: str) -> Callable[[Array], Array]:
    import pyfftw

    @functools.cache
    def plan(shape: tuple[int, ...]) -> Any:
        work = pyfftw.empty_aligned(shape, np.complex64)
        flags = ("FFTW_MEASURE", "FFTW_UNALIGNED")
        return pyfftw.FFTW(work, work, axes=(-2, -1), direction=direction, flags=flags, planning_timelimit=5.0)

    def transform(waves: Array) -> Array:
        ready = plan(waves.shape)
        if waves.strides != ready.input_strides:
            waves = waves.copy()
        ready.update_arrays(waves, waves)
        ready.execute()
        return waves

    return transform
