"""Element maps of a P06 scan with PyMca's fast linear fit: `python xrf.py RAW SCAN CFG FOLDER ROWS COLUMNS`."""

import pathlib
import sys

import h5py
import numpy as np
from PIL import Image
from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

raw, scan, cfg, out = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
shape, block = (int(sys.argv[5]), int(sys.argv[6])), 20_000
fit = FastXRFLinearFit()
fit.setFitConfigurationFile(cfg)


def summed(path):
    """Return spectra (point, channel) of a file: both elements, corrected for dead time."""
    with h5py.File(path) as file:
        total = 0
        for channel in file["entry/instrument/xspress3"].values():
            live = channel["scaler/totalticks"][()].astype(float)
            factor = live / (live - channel["scaler/deadtimeticks"][()])
            total = total + channel["histogram"][()] * factor[:, None].astype(np.float32)
        return total.astype(np.float32)


areas, waiting, held = {}, [], 0
files = sorted((raw / scan).glob("xspress3_*/*.nxs"))
for number, path in enumerate(files):
    waiting.append(summed(path))
    held += len(waiting[-1])
    if held >= block or number == len(files) - 1:
        found = fit.fitMultipleSpectra(y=np.concatenate(waiting), weight=0, refit=True)
        for name, values in zip(found.labels("parameters"), found["parameters"], strict=True):
            areas.setdefault(name, []).append(values)
        waiting, held = [], 0
positions = {"x": [], "y": []}
for path in sorted((raw / scan).glob("pilctriggergenerator_*/*.nxs")):
    with h5py.File(path) as file:
        positions["x"].append(file["entry/data/encoder_3"][()])
        positions["y"].append(file["entry/data/encoder_2"][()])
out.mkdir(parents=True, exist_ok=True)
with h5py.File(out / "maps.h5", "w") as file:
    for name, parts in (areas | positions).items():
        file[name.replace(" ", "_")] = np.concatenate(parts).reshape(shape)
for name, parts in areas.items():
    image = np.concatenate(parts).reshape(shape).astype(np.float32)
    Image.fromarray(image).save(out / f"{name.replace(' ', '_')}.tiff")
    low, high = np.nanpercentile(image, [0.5, 99.5])
    grey = np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255
    Image.fromarray(grey.astype(np.uint8)).save(out / f"{name.replace(' ', '_')}.jpg")
