"""Objects from elsewhere for ptychography: pictures that Matplotlib brings along as sample data. They are read where they lie.

photograph  grace_hopper.jpg            US Navy, public domain
fault       jacksboro_fault_dem.npz     heights, US Geological Survey, public domain
seabed      topobathy.npz               heights on land and below the sea
tomogram    s1045.ima.gz                magnetic resonance slice of a head
emblem      Minduka_Present_Blue_Pack.png   drawing, public domain
"""

import gzip
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage


def photograph(size: int) -> np.ndarray:
    """Return a face that absorbs: transmission 25 to 100 %, and 0.8 rad."""
    made = _fitted(_picture("grace_hopper.jpg", "L"), size)
    return (0.25 + 0.75 * made) * np.exp(0.8j * made)


def fault(size: int) -> np.ndarray:
    """Return mountains as a phase of 3 rad."""
    with np.load(_path("jacksboro_fault_dem.npz")) as stored:
        return np.exp(3j * _fitted(stored["elevation"], size))


def seabed(size: int) -> np.ndarray:
    """Return land and sea, 2 rad, a little absorbing."""
    with np.load(_path("topobathy.npz")) as stored:
        made = _fitted(stored["topo"], size)
    return (1 - 0.2 * made) * np.exp(2j * made)


def tomogram(size: int) -> np.ndarray:
    """Return a section of a head as a phase of 1.2 rad."""
    with gzip.open(_path("s1045.ima.gz")) as opened:
        return np.exp(1.2j * _fitted(np.frombuffer(opened.read(), np.uint16).reshape(256, 256), size))


def emblem(size: int) -> np.ndarray:
    """Return a drawing with sharp edges, 1 rad and 50 % absorbing."""
    made = _fitted(_picture("Minduka_Present_Blue_Pack.png", "LA"), size)
    return (0.5 + 0.5 * made) * np.exp(-1j * made)


def _path(name: str) -> str:
    import matplotlib.cbook

    return str(matplotlib.cbook.get_sample_data(name, asfileobj=False))


def _picture(name: str, mode: str) -> np.ndarray:
    with Image.open(_path(name)) as opened:
        return np.asarray(opened.convert(mode).convert("L"), float)


def _fitted(picture: Any, size: int) -> np.ndarray:
    """Return the middle square of a picture with so many pixels a side, from 0 to 1."""
    picture = np.nan_to_num(np.asarray(picture, float))
    side = min(picture.shape)
    first = [(length - side) // 2 for length in picture.shape]
    square = picture[first[0] : first[0] + side, first[1] : first[1] + side]
    made = ndimage.zoom(square, size / side, order=1)[:size, :size]
    made = np.pad(made, [(0, size - length) for length in made.shape], mode="edge")
    return (made - made.min()) / np.ptp(made)
