"""Maps as TIFF for ImageJ: classic, striped, 32-bit float, uncompressed, calibrated in micron.

ImageJ shows row 0 on top, silx at the bottom: here coordinates grow to the right and upwards, as in silx, so rows (and
columns, for an axis that runs down) are turned where needed. What was not measured is NaN; ImageJ's statistics skip it.
"""

import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.writers import FinishedProduct, Map, Outputs

Array = NDArray[Any]
MICRON = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}
"""Units of length, in micron."""


def upright(shown: Map) -> Array:
    """Return the values so that coordinates grow to the right and upwards when row 0 is drawn on top."""
    slow, fast = shown.axes
    values = shown.values[::-1] if slow.step > 0 else shown.values
    return values if fast.step > 0 else values[:, ::-1]


def write(product: FinishedProduct, out: Outputs) -> None:
    """Write every map of a product: the writer "tiff"."""
    facts = {name: getattr(product.product, name) for name in ("scan", "pipeline", "settings")}
    for shown in product.maps:
        write_tiff(out.path(f"_{shown.name}.tif", "maps"), shown, facts)


def write_tiff(path: pathlib.Path, shown: Map, facts: dict[str, str]) -> None:
    """Write one map; `facts` are shown by ImageJ under Image > Show Info."""
    try:
        import tifffile
    except ImportError as error:
        raise BadInput("TIFF maps need tifffile: pip install 'beamtide[maps]'") from error
    image = np.ascontiguousarray(upright(shown), dtype=np.float32)
    good = image[np.isfinite(image)]
    scale = [MICRON.get(axis.units) for axis in shown.axes]
    known = [abs(axis.step) * factor for axis, factor in zip(shown.axes, scale, strict=True) if factor]
    unit, (height, width) = ("micron", known) if len(known) == 2 else ("pixel", [1.0, 1.0])
    metadata = {
        "axes": "YX",
        "unit": unit,
        "min": float(good.min()) if good.size else 0.0,
        "max": float(good.max()) if good.size else 1.0,
        "Info": "\n".join(f"{key}={value}" for key, value in {**facts, **_origin(shown)}.items()),
    }
    tifffile.imwrite(path, image, imagej=True, resolution=(1.0 / width, 1.0 / height), metadata=metadata)


def _origin(shown: Map) -> dict[str, str]:
    facts = {"dataset": shown.name, "units": shown.units} | ({"quality": shown.warning} if shown.warning else {})
    for axis in shown.axes:
        facts[axis.name] = f"{axis.values.min():g} to {axis.values.max():g} {axis.units}"
    return facts
