"""The files of NanoMAX at MAX IV: one file of positions and counters per scan, one file per detector.

    000008.h5                      entry/measurement/panda0/<field>     PandABox columns, means over the exposure
                                   entry/measurement/alba2/1 .. 4       electrometer currents in A
                                   entry/description                    the scan command
    scan_000008_xspress3.hdf5      entry/instrument/xspress3/data, dead_time_correction

Columns have the name of their field: "INENC2.VAL_Mean" (x there), "INENC3.VAL_Mean" (y), "INENC1.VAL_Mean" (z), "alba2/1".
In `npointflyscan` the first motor runs fastest.
"""

import pathlib
from collections.abc import Mapping

import h5py

from beamtide.errors import BadInput
from beamtide.formats.hdf5 import HdfFormat
from beamtide.formats.opening import opened
from beamtide.formats.recognise import hint_of
from beamtide.formats.scan_command import points_of

PANDA_GROUP = "entry/measurement/panda0"
ALBA_GROUP = "entry/measurement/alba2"


def shape_of(path: pathlib.Path) -> tuple[int, ...] | None:
    """Return the shape of a scan from the command in its positions file."""
    try:
        with opened(path) as file:
            command = file["entry/description"][0]
    except (BadInput, KeyError, IndexError):
        return None
    points = points_of(command.decode() if isinstance(command, bytes) else str(command))
    return points[::-1] if points else None


def _panda(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    group = file.get(PANDA_GROUP)
    if not isinstance(group, h5py.Group) or not len(group):
        raise BadInput(
            f"{file.filename}: there are no columns in {PANDA_GROUP}; is this the positions file of the scan?{hint_of(file)}"
        )
    layout = {name: f"{PANDA_GROUP}/{name}" for name in group}
    alba = file.get(ALBA_GROUP)
    channels = [name for name in alba if name.isdecimal()] if isinstance(alba, h5py.Group) else []
    return layout | {f"alba2/{name}": f"{ALBA_GROUP}/{name}" for name in channels}


def _xspress3(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    where = "entry/instrument/xspress3"
    return {"spectra": f"{where}/data", "dead_time_factor": f"{where}/dead_time_correction"}


PANDA = HdfFormat(layout=_panda, shape_of=shape_of)
XSPRESS3 = HdfFormat(layout=_xspress3)
