"""Measured Eiger frames as an HDF5 file: the compressed blobs of a recorded stream, written as chunks without recompression."""

import json
import pathlib
import re

import h5py
import numpy as np

IMAGE = re.compile(rb'\{"htype": "image".*?\}')


def blobs(stream: pathlib.Path) -> list[tuple[tuple[int, int], bytes]]:
    """Return shape and compressed bytes of each image of a recorded stream (CBOR: the byte string behind its JSON header)."""
    content, found = stream.read_bytes(), []
    for match in IMAGE.finditer(content):
        header, at = json.loads(match[0]), match.end()
        width = {0x58: 1, 0x59: 2, 0x5A: 4}[content[at]]
        size = int.from_bytes(content[at + 1 : at + 1 + width], "big")
        rows, columns = header["shape"]
        found.append(((rows, columns), content[at + 1 + width : at + 1 + width + size]))
    return found


def write(path: pathlib.Path, stream: pathlib.Path, frames: int) -> None:
    """Write the first frames of a stream as an Eiger writes its files."""
    wanted = blobs(stream)[:frames]
    shape = wanted[0][0]
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "entry/data/data", (len(wanted), *shape), "u4", chunks=(1, *shape), compression=32008, compression_opts=(0, 2)
        )
        for number, (_, blob) in enumerate(wanted):
            data.id.write_direct_chunk((number, 0, 0), blob)


def dense(shape: tuple[int, int], mean: float, seed: int = 0) -> np.ndarray:
    """Return a made-up frame: Poisson counts, and two columns of gaps as an Eiger marks them."""
    frame = np.random.default_rng(seed).poisson(mean, shape).astype("u4")
    frame[:, shape[1] // 2 : shape[1] // 2 + 2] = 2**32 - 1
    return frame
