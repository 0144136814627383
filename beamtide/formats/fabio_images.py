"""Image files that fabio reads: TIFF, CBF, EDF and MarCCD, of one frame or many.

    source: {match: "{scan}/pilatus/*.cbf", format: fabio}

The array is "frames" (frame, row, column), in the file's own type of number: marks of the detector (-1, -2) stay what they are.
There are no options: the kind shows in the first bytes. Numbers are those of `fabio.open(path).get_frame(n).data`. Before fabio
sees a file, its header is read (`images.header`), so a file that is cut off, or is another kind, is a sentence and never zeros;
the checksum of a CBF is compared. Frames are read one at a time when they are used; one that cannot be read is lost by itself.
"""

import base64
import hashlib
import importlib.util
import io
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Extent, LostFrames, Missing, Unfinished
from beamtide.formats.images import cbf, edf, tiff
from beamtide.formats.images.header import ImageFile, words
from beamtide.formats.lazy import LazyFrames
from beamtide.formats.recognise import look

if importlib.util.find_spec("fabio") is None:
    raise ImportError("it needs the package fabio: pip install 'beamtide[images]'")

ARRAY = "frames"
BEGINNINGS = (*tiff.STARTS, cbf.START, b"\r\n{\r\n", b"\n{\n", b"{\r\n", b"{\n")


class StoredImages(LazyFrames):
    """Frames `first` to `last` of an image file. LostFrames: one of them cannot be read."""

    def __init__(self, path: pathlib.Path, found: ImageFile, rows: tuple[int, int]) -> None:
        super().__init__((rows[1] - rows[0], *found.shape), found.dtype)
        self._path, self._found, self._first = path, found, rows[0]

    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield these frames; the file is opened once for all of them."""
        frames = READERS[self._found.kind](self._path, self._found, [self._first + row for row in rows])
        for row in rows:
            try:
                image = next(frames)
                if (image.shape, image.dtype) != (self._found.shape, self._found.dtype):
                    said = words((self._found.shape, self._found.dtype))
                    raise ValueError(f"fabio finds {image.shape} {image.dtype}, the header says {said}")
            except Exception as error:  # fabio raises what its readers raise
                said = " ".join(str(error).split()) or type(error).__name__
                why = f"{self._path}: frame {self._first + row} cannot be read ({said}); the file is damaged"
                raise LostFrames((Missing(row, row + 1, why),)) from error
            yield image


@dataclass(frozen=True, slots=True)
class FabioFormat:
    """One or more frames in an image file."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds, by its header."""
        if options:
            raise BadInput(f"source.options: format fabio has none, but {next(iter(options))!r} is given; take it away")
        return Extent(header_of(path).frames)

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the frames `first <= frame < last`, not yet read; LostFrames where the file does not hold them any more."""
        try:
            found = header_of(path)
        except BadInput as error:
            raise LostFrames((Missing(first, last, str(error)),)) from error
        if not 0 <= first <= last <= found.frames:
            raise BadInput(f"{path}: frames {first} to {last} were asked for, but it holds {found.frames}; was it written again?")
        return {ARRAY: StoredImages(path, found, (first, last))}

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return nothing: these files do not know the scan."""
        return None


def header_of(path: pathlib.Path) -> ImageFile:
    """Return what a file holds. Unfinished: it is not there, empty, or ends too early. BadInput: it is not read, and why."""
    try:
        with path.open("rb") as file:
            begins = file.read(64)
            reader = _header_reader(begins)
            if reader is not None:
                return reader(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError as error:
        raise Unfinished(f"{path} is not there (yet); check roots.raw and source.match") from error
    except Unfinished as error:
        raise Unfinished(f"{path} {error}") from error
    except BadInput as error:
        raise BadInput(f"{path} {error}") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror})") from error
    except (struct.error, ValueError, OverflowError, KeyError) as error:
        said = " ".join(str(error).split())
        raise BadInput(f"{path} has a header that cannot be understood ({type(error).__name__}: {said})") from error
    if not begins.strip(b"\0") or any(start.startswith(begins) for start in BEGINNINGS):
        raise Unfinished(f"{path} has no header (yet): it is still being written, or damaged")
    kind = look(path) or f"it begins with {begins[:8]!r}"
    raise BadInput(f"{path} is no image that format fabio reads (TIFF, CBF, EDF, MarCCD); {kind}")


def _header_reader(begins: bytes) -> Callable[[BinaryIO, int], ImageFile] | None:
    if begins.startswith(tiff.STARTS):
        return tiff.read
    if begins.startswith(cbf.START):
        return cbf.read
    return edf.read if edf.START.match(begins) else None


def _tiff(path: pathlib.Path, found: ImageFile, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield pages of a TIFF; fabio's own image would keep the last 20."""
    from fabio.TiffIO import TiffIO

    with path.open("rb") as file:
        tiff.read(file, os.fstat(file.fileno()).st_size)  # of what is read now
        pages = TiffIO(file, cache_length=0)
        for row in rows:
            yield np.asarray(pages.getData(row, close=False))


def _edf(path: pathlib.Path, found: ImageFile, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield frames of an EDF; each is forgotten when the next one is read. What the file does not hold, fabio makes zeros of."""
    from fabio.edfimage import EdfImage

    with path.open("rb") as file:
        held = edf.read(file, os.fstat(file.fileno()).st_size).frames
    with EdfImage().read(str(path)) as image:
        for row in rows:
            if row >= held:
                raise ValueError(f"the file holds only {held} frames now")
            frame = image.get_frame(row)
            values, frame.data = np.asarray(frame.data), None
            yield values


def _cbf(path: pathlib.Path, found: ImageFile, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield the image of a CBF; ValueError if its checksum is another."""
    from fabio.cbfimage import CbfImage

    content = path.read_bytes()
    now = cbf.read(io.BytesIO(content), len(content))  # of what is read now
    start, length = now.binary
    digest = base64.b64encode(hashlib.md5(content[start : start + length], usedforsecurity=False).digest()).decode()
    if now.digest and digest != now.digest:
        raise ValueError(f"the MD5 of its image is {digest}, its header says {now.digest}")
    image = CbfImage().read(io.BytesIO(content), check_MD5=False)
    for _ in rows:
        yield np.asarray(image.data)


READERS: Mapping[str, Callable[[pathlib.Path, ImageFile, Sequence[int]], Iterator[NDArray[Any]]]] = {
    "TIFF": _tiff,
    "CBF": _cbf,
    "EDF": _edf,
}
FORMAT = FabioFormat()
