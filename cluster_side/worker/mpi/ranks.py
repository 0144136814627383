"""A team of MPI ranks: partial sums are added up, and one rank can broadcast to all.

Arrays of one call are sent as one message of 32-bit numbers (and a small one of 64-bit numbers), so an iteration costs one
latency, not one for each array. Arrays on a GPU are copied to the host unless this MPI is CUDA-aware. Only bytes and numbers are
sent: nothing is pickled.

MPI itself waits busily. Where there are more ranks than cores, those that wait would keep the others from what they wait for
(four ranks on two cores: minutes instead of seconds). So a rank looks for a short time, and then sleeps between looks.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide import clock

SAYS_SO = ("OMPI_MCA_opal_cuda_support", "MPICH_GPU_SUPPORT_ENABLED", "MPIR_CVAR_ENABLE_GPU")
"""Variables by which an MPI says that it is CUDA-aware."""
LOOK, REST = 1e-3, 1e-4
"""Seconds that a rank looks busily for what it waits for; seconds between later looks."""


class Ranks:
    """All ranks of this MPI program. Every method is called by all of them, in the same order."""

    def __init__(self) -> None:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"  # a second thread sends heartbeats, and does not use MPI
        from mpi4py import MPI

        self._comm, self._mpi = MPI.COMM_WORLD, MPI
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self.local_rank = self._comm.Split_type(MPI.COMM_TYPE_SHARED).Get_rank()
        self._direct = any(os.environ.get(name, "").lower() in ("1", "true") for name in SAYS_SO)

    def add_up(self, arrays: list[Any]) -> None:
        """Replace each array, in place, by its sum over all ranks."""
        if self._direct and all(hasattr(array, "__cuda_array_interface__") for array in arrays):
            for array in arrays:
                self._comm.Allreduce(self._mpi.IN_PLACE, array)  # that which does not block takes no arrays of a GPU (Open MPI)
            return
        for wide in (np.float32, np.float64):
            group = [array for array in arrays if _real_kind(array) == wide]
            if not group:
                continue
            parts = [np.ascontiguousarray(_host(array)).view(wide).ravel() for array in group]
            packed = np.concatenate(parts)
            _wait(self._comm.Iallreduce(self._mpi.IN_PLACE, packed))
            at = 0
            for array, part in zip(group, parts, strict=True):
                _fill(array, packed[at : at + part.size])
                at += part.size

    def told(self, text: bytes) -> bytes:
        """Return the bytes that rank 0 passes; the others pass b""."""
        length = np.array([len(text)], np.int64)
        _wait(self._comm.Ibcast(length))
        content = np.frombuffer(text, np.uint8).copy() if self.rank == 0 else np.empty(int(length[0]), np.uint8)
        _wait(self._comm.Ibcast(content))
        return content.tobytes()

    def give_up(self, code: int) -> None:
        """End all ranks now."""
        self._comm.Abort(code)


def _wait(request: Any) -> None:
    """Return once an MPI request is done."""
    busy = clock.monotonic() + LOOK
    while not request.Test():
        if clock.monotonic() > busy:
            clock.pause(REST)


def _real_kind(array: Any) -> type[np.floating[Any]]:
    return np.float64 if str(array.dtype).endswith(("float64", "complex128")) else np.float32


def _host(array: Any) -> NDArray[Any]:
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())


def _fill(array: Any, numbers: NDArray[Any]) -> None:
    """Put 32- or 64-bit numbers back into an array of any module."""
    dtype = np.dtype(str(array.dtype))
    values = numbers.view(dtype).reshape(array.shape)
    if isinstance(array, np.ndarray):
        array[...] = values
    else:
        array.set(values)
