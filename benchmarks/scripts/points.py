"""Positions and counters of a fly scan, as maps: `python points.py RAW SCAN - FOLDER ROWS COLUMNS`."""

import pathlib
import sys

import h5py
import numpy as np
from PIL import Image

raw, scan, _, out = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
shape = (int(sys.argv[5]), int(sys.argv[6]))
parts = {name: [] for name in ("u", "v", "i0", "diode")}
for path in sorted((raw / scan).glob("*.h5")):
    with h5py.File(path) as file:
        for name, found in parts.items():
            found.append(file[name][()])
whole = {name: np.concatenate(found).astype(float) for name, found in parts.items()}
result = {
    "x": whole["u"] * 0.001,
    "y": whole["v"] * 0.001,
    "i0": (whole["i0"] - 2.0) / 0.001,
    "diode": whole["diode"] / 0.001,
}
out.mkdir(parents=True, exist_ok=True)
with h5py.File(out / "points.h5", "w") as file:
    for name, values in result.items():
        file[name] = values.reshape(shape)
for name in ("i0", "diode"):
    image = result[name].reshape(shape).astype(np.float32)
    Image.fromarray(image).save(out / f"{name}.tiff")
    low, high = np.nanpercentile(image, [0.5, 99.5])
    Image.fromarray((np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)).save(out / f"{name}.jpg")
