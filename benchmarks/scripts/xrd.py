"""Patterns of Eiger files with pyFAI's fastest method, and a map: `python xrd.py RAW SCAN PONI FOLDER ROWS COLUMNS`."""

import pathlib
import sys

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pyFAI
from PIL import Image

raw, scan, poni, out = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
shape, ai = (int(sys.argv[5]), int(sys.argv[6])), pyFAI.load(poni)
patterns, mask = [], None
for path in sorted((raw / scan).glob("*_data_*.h5")):
    with h5py.File(path) as file:
        for frame in file["entry/data/data"]:
            if mask is None:
                mask = frame == 2**32 - 1
            made = ai.integrate1d_ng(
                frame, 1000, mask=mask, method=("bbox", "csc", "cython"), error_model="poisson", unit="q_nm^-1"
            )
            patterns.append((made.intensity, made.sigma))
intensity, sigma = np.moveaxis(np.array(patterns, np.float32), 1, 0)
out.mkdir(parents=True, exist_ok=True)
with h5py.File(out / "patterns.h5", "w") as file:
    file["radial"], file["intensity"], file["sigma"] = made.radial, intensity, sigma
image = np.nanmean(intensity, axis=1).reshape(shape)
Image.fromarray(image).save(out / "mean.tiff")
low, high = np.nanpercentile(image, [0.5, 99.5])
Image.fromarray((np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)).save(out / "mean.jpg")
