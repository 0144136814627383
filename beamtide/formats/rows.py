"""Frames out of an HDF5 dataset: chunks are looked at before they are decompressed, so that a damaged file ends no process.

Theory: decoders trust the lengths that stand in a chunk, and read or write beyond the end of memory if these are damaged. So
- bitshuffle with LZ4, as most detectors write it, is decompressed here, after its lengths were followed through the chunk;
- filters of HDF5 itself fail in an orderly way, and are left to HDF5;
- every other filter runs in a child process, which writes into memory that both share: if it crashes, only the child dies.
A chunk that was stored without its filters (its filter mask says so) is taken as it is. A chunk that cannot be read costs the
frames in it and no others: they are `LostFrames`.
"""

import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.formats import filters, unwritten
from beamtide.formats.base import LostFrames, Missing

LZ4 = 2
"""The parameter of bitshuffle that says what compresses after it."""
HEADER = 12
"""A chunk begins with its size (8 bytes) and the size of its blocks (4 bytes), big-endian."""
LARGEST_BLOCK = 1 << 20
"""Bytes; a block may be larger than a small chunk."""
BATCH = 64 << 20
"""Bytes of frames that are read at once where each frame by itself would be slow."""
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_length = struct.Struct(">I").unpack_from
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Way:
    """How the frames of a dataset are read."""

    name: str
    """"bitshuffle": here. "hdf5": by HDF5. "apart": by HDF5 in a child process."""

    def rows(self, dataset: h5py.Dataset, first: int, last: int) -> Array:
        """Return frames `first <= frame < last`; LostFrames names those that cannot be read."""
        if self.name == "bitshuffle":
            return _joined(dataset, first, last)
        read = _apart if self.name == "apart" else _plainly
        try:
            return read(dataset, first, last)
        except OSError:
            return _chunk_by_chunk(dataset, first, last, read)

    def frames(self, dataset: h5py.Dataset, rows: Sequence[int]) -> Iterator[Array]:
        """Yield these frames (in rising order), some at a time; LostFrames for one that cannot be read."""
        if self.name == "bitshuffle" and dataset.chunks == (1, *dataset.shape[1:]):
            yield from (_frame(dataset, row) for row in rows)
            return
        chunk = dataset.chunks[0] if dataset.chunks else 1
        size = max(1, int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize)
        most = max(chunk, BATCH // size // chunk * chunk) if self.name == "apart" else chunk
        held, begin = np.empty(0), 0
        for row in rows:
            if not begin <= row < begin + len(held):
                begin, end = row, min(rows[-1] + 1, row // chunk * chunk + most)
                held = self.rows(dataset, begin, end)
            yield held[row - begin]


def way_of(dataset: h5py.Dataset, known: unwritten.KnownFrames) -> Way:
    """Return how to read a dataset of which this is known; BadInput for a filter that nobody here knows."""
    applied = filters.filters_of(dataset.id)
    if [number for number, _ in applied] == [filters.BITSHUFFLE] and applied[0][1][4:5] == (LZ4,) and has_bitshuffle():
        return Way("bitshuffle")
    filters.ensure(known.filters, f"{dataset.file.filename}: {dataset.name}")
    return Way("hdf5" if known.filters <= filters.OWN else "apart")


def has_bitshuffle() -> bool:
    """Whether the package is there that decompresses in half the time of HDF5's filter pipeline."""
    try:
        import bitshuffle  # noqa: F401
    except ImportError:
        return False
    return True


def decompressed(chunk: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return the array in a chunk of bitshuffle-LZ4; ValueError if it is not what it says."""
    import bitshuffle

    block = _checked_block(chunk, int(np.prod(shape)), dtype.itemsize)
    packed = np.frombuffer(chunk, dtype=np.uint8, offset=HEADER)
    return np.asarray(bitshuffle.decompress_lz4(packed, shape, dtype, block))


def _checked_block(chunk: bytes, count: int, item: int) -> int:
    """Return the elements in a block of a chunk, whose lengths were followed to its end; ValueError where they lead elsewhere."""
    if len(chunk) < HEADER:
        raise ValueError(f"its chunk has only {len(chunk)} bytes")
    size, length = int.from_bytes(chunk[:8], "big"), int.from_bytes(chunk[8:HEADER], "big")
    if size != count * item:
        raise ValueError(f"its chunk says that it holds {size} bytes, but a chunk has {count * item}")
    block = length // item
    if block <= 0 or block % 8 or block * item != length or length > max(size, LARGEST_BLOCK):
        raise ValueError(f"its chunk has blocks of {length} bytes")
    at, end = HEADER, len(chunk) - count % 8 * item
    try:
        for _ in range(count // block + (count % block >= 8)):
            at += 4 + _length(chunk, at)[0]
    except struct.error:
        raise ValueError(f"a block in its chunk reaches beyond its end ({len(chunk)} bytes)") from None
    if at != end:
        raise ValueError(f"the blocks in its chunk end at byte {at} of {end}")
    return block


def _joined(dataset: h5py.Dataset, first: int, last: int) -> Array:
    """Return frames of a dataset in chunks of bitshuffle-LZ4; a frame may be cut over several chunks."""
    if first == last:
        return np.empty((0, *dataset.shape[1:]), dataset.dtype)
    whole, lost = np.empty((last - first, *dataset.shape[1:]), dataset.dtype), list[Missing]()
    per, *sides = dataset.chunks
    corners = [range(0, length, side) for length, side in zip(dataset.shape[1:], sides, strict=True)]
    grid = np.stack(np.meshgrid(*corners, indexing="ij"), axis=-1).reshape(-1, len(corners)) if corners else np.zeros((1, 0), int)
    for begin in range(first // per * per, last, per):
        low, high = max(first, begin), min(last, begin + per, len(dataset))
        try:
            for corner in grid.tolist():
                part = _chunk(dataset, (begin, *corner))
                inside = tuple(slice(at, at + side) for at, side in zip(corner, sides, strict=True))
                target = whole[(slice(low - first, high - first), *inside)]
                target[...] = part[(slice(low - begin, high - begin), *(slice(0, length) for length in target.shape[1:]))]
        except (OSError, ValueError, RuntimeError) as error:
            lost.append(Missing(low, high, _damaged(dataset, (low, high), error)))
    if lost:
        raise LostFrames(tuple(lost))
    return whole


def _frame(dataset: h5py.Dataset, row: int) -> Array:
    """Return a frame that is one chunk of bitshuffle-LZ4."""
    try:
        return np.asarray(_chunk(dataset, (row, *(0 for _ in dataset.shape[1:])))[0])
    except (OSError, ValueError, RuntimeError) as error:
        raise LostFrames((Missing(row, row + 1, _damaged(dataset, (row, row + 1), error)),)) from error


def _chunk(dataset: h5py.Dataset, corner: tuple[int, ...]) -> Array:
    mask, chunk = dataset.id.read_direct_chunk(corner)
    shape, dtype = dataset.chunks, dataset.dtype
    if not mask & 1:
        return decompressed(chunk, shape, dtype)
    if len(chunk) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"its chunk was stored without compression, but has {len(chunk)} bytes")
    return np.asarray(np.frombuffer(chunk, dtype).reshape(shape))


def _plainly(dataset: h5py.Dataset, first: int, last: int) -> Array:
    return np.asarray(dataset[first:last])


def _apart(dataset: h5py.Dataset, first: int, last: int) -> Array:
    """Read frames in a child process, into memory that both share; OSError if it says so, or dies."""
    shape = (last - first, *dataset.shape[1:])
    size = int(np.prod(shape)) * dataset.dtype.itemsize
    shared = mmap.mmap(-1, size + 256)
    whole = np.frombuffer(shared, dataset.dtype, int(np.prod(shape)), 256).reshape(shape)
    child = os.fork()
    if not child:
        try:
            dataset.read_direct(whole, np.s_[first:last])
            os._exit(0)
        except BaseException as error:
            shared[:255] = " ".join(str(error).split()).encode()[:254].ljust(255, b"\0")
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        if os.WTERMSIG(status) in CRASHES:
            raise OSError(f"it makes the decoder crash, {name}")
        raise RuntimeError(f"the process that read {dataset.name} of {dataset.file.filename} was ended by {name}")
    if status:
        raise OSError(shared[:255].rstrip(b"\0").decode(errors="replace"))
    return whole


def _chunk_by_chunk(dataset: h5py.Dataset, first: int, last: int, read: Callable[[h5py.Dataset, int, int], Array]) -> Array:
    """Return frames that cannot be read at once; LostFrames names those in the chunks that cannot be read."""
    per = dataset.chunks[0] if dataset.chunks else max(1, last - first)
    parts, lost = list[Array](), list[Missing]()
    for begin in range(first // per * per, last, per):
        low, high = max(first, begin), min(last, begin + per)
        try:
            parts.append(read(dataset, low, high))
        except OSError as error:
            lost.append(Missing(low, high, _damaged(dataset, (low, high), error)))
    if lost:
        raise LostFrames(tuple(lost))
    return np.concatenate(parts)


def _damaged(dataset: h5py.Dataset, rows: tuple[int, int], error: Exception) -> str:
    said = " ".join(str(error).split())
    where = f"{dataset.file.filename}: frame {rows[0]}" + (f" to {rows[1] - 1}" if rows[1] - rows[0] > 1 else "")
    if "not allocated" in said:
        return f"{where} of {dataset.name} was laid out, and never written"
    return f"{where} of {dataset.name} cannot be decompressed ({said}); the file is damaged"
