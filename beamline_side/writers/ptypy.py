"""The positions file for ptypy's P06 loader (`P06Scan`): the position of every index, and the centre of its beam.

    /axes/<motor>                                 positions by index, NaN where a trigger was lost, in the motor's unit there
    /detectors/<pipeline>/centre_of_mass/{x,y}    pixels by index, where the product has com_x and com_y

x and y are "scanx" and "scany", in micrometres; a dataset with the name of another motor that the loader knows (scanu, samx …) is
written too, in its unit. The loader drops an index where x is NaN, so both are NaN where one of them is.
"""

import pathlib

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_side.writers import rows
from beamtide import units
from beamtide.errors import BadInput
from beamtide.writers import FinishedProduct, Outputs, Positions

MOTORS = {
    **{f"scan{axis}": "um" for axis in "uvwxyz"},
    **{f"{stage}{axis}": "mm" for stage in ("sam", "hex") for axis in "xyz"},
    **{f"cen{axis}": "mm" for axis in "xy"},
}
"""Motor -> the unit that the loader takes its numbers in."""


def write(product: FinishedProduct, out: Outputs) -> None:
    """Write where every index was measured: the writer "ptypy"."""
    write_positions(out.path("_positions.h5"), product.file, product.positions)


def write_positions(path: pathlib.Path, result: pathlib.Path, positions: Positions | None) -> None:
    """Write the positions file beside a finished result file; BadInput when there are no positions, or no lengths."""
    with h5py.File(result, "r") as found, h5py.File(path, "w", libver=("earliest", "v110")) as file:
        data = found["entry/data"]
        x, y = _measured(data, positions)
        lost = ~np.isfinite(x * y)
        axes = rows.group(file, "axes", "NXcollection")
        for name, values in (("scanx", x), ("scany", y)):
            rows.field(axes, name, np.where(lost, np.nan, values), MOTORS[name])
        for name in sorted(MOTORS.keys() & data.keys() - {"scanx", "scany"}):
            values = data[name][()] * units.factor(str(data[name].attrs["units"]), MOTORS[name])
            rows.field(axes, name, values, MOTORS[name])
        if {"com_x", "com_y"} <= data.keys():
            where = f"detectors/{found['entry'].attrs['pipeline']}/centre_of_mass"
            for axis in ("x", "y"):
                rows.field(rows.group(file, where, "NXcollection"), axis, np.where(lost, np.nan, data[f"com_{axis}"][()]), "px")


def _measured(data: h5py.Group, positions: Positions | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of every index in micrometres."""
    if positions is None and {"x", "y"} <= data.keys():
        x, y = data["x"], data["y"]
        positions = Positions(x[()], y[()], str(x.attrs["units"]), str(y.attrs["units"]))
    if positions is None:
        raise BadInput("a positions file for ptypy needs x and y: name the pipeline that has them under `positions`.")
    micrometres = [
        np.asarray(values, float) * units.factor(unit, "um")
        for values, unit in ((positions.x, positions.units_x), (positions.y, positions.units_y))
    ]
    return micrometres[0], micrometres[1]
