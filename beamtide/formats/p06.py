"""The files of P06 at PETRA III, in the layout that its public readers expect.

    raw/[<nnnn_sample>/]scan_00042.nxs                                  master, written by NexDaTaS
    raw/[<nnnn_sample>/]scan_00042/pilctriggergenerator_04/*.nxs        /entry/data/encoder_1 .. encoder_4
    raw/[<nnnn_sample>/]scan_00042/xspress3_01/*.nxs                    /entry/instrument/xspress3/channelNN/…
    raw/[<nnnn_sample>/]scan_00042/{adc_01,qbpm_02}/*.nxs               /entry/data/value1 …, exposuretime

Which encoder is which axis differs by set-up, so the columns keep their names and the settings of the modality choose.
Dead time: `scaler/totalticks` counts the clock during the exposure, `scaler/deadtimeticks` the part of it in which the
channel could not take an event; so the counts of a channel are to be multiplied by total / (total - dead).
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.hdf5 import Columns, HdfFormat
from beamtide.formats.natural import natural
from beamtide.formats.opening import opened
from beamtide.formats.recognise import hint_of
from beamtide.formats.scan_command import points_of

XSPRESS3_GROUP = "/entry/instrument/xspress3"
CHANNEL = re.compile(r"channel\d+")
ENCODERS = tuple(f"encoder_{number}" for number in range(1, 5))


def shape_of(path: pathlib.Path) -> tuple[int, ...] | None:
    """Return the shape of a scan from its master file, given the master or a detector file of the scan.

    Axes are taken in the order of the command, the last one runs fastest.
    """
    master = path if (path.parent / path.stem).is_dir() else path.parent.parent.with_suffix(".nxs")
    if not master.is_file():
        return None
    try:
        with opened(master) as file:
            command = file["scan/program_name"].attrs["scan_command"]
    except (BadInput, KeyError):
        return None
    return points_of(command.decode() if isinstance(command, bytes) else str(command))


def _pilc(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    return {name: f"/entry/data/{name}" for name in ENCODERS}


def _counters(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    group = file.get("/entry/data")
    columns = [name for name, one in group.items() if _is_column(one)] if isinstance(group, h5py.Group) else []
    if not columns:
        raise BadInput(
            f"{file.filename}: there are no columns in /entry/data; is this a file of an ADC or a QBPM?{hint_of(file)}"
        )
    return {name: f"/entry/data/{name}" for name in columns}


def _is_column(found: object) -> bool:
    return isinstance(found, h5py.Dataset) and found.ndim in (1, 2) and found.dtype.kind in "iuf"


def _xspress3(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    group = file.get(XSPRESS3_GROUP)
    channels = sorted((name for name in group if CHANNEL.fullmatch(name)), key=natural) if isinstance(group, h5py.Group) else []
    if not channels:
        raise BadInput(f"{file.filename}: there is no {XSPRESS3_GROUP}/channel00; is this a file of an Xspress3?{hint_of(file)}")
    layout = {}
    for name in channels:
        layout[f"{name}/histogram"] = f"{XSPRESS3_GROUP}/{name}/histogram"
        layout[f"{name}/dead"] = f"{XSPRESS3_GROUP}/{name}/scaler/deadtimeticks"
        layout[f"{name}/total"] = f"{XSPRESS3_GROUP}/{name}/scaler/totalticks"
    _check_same_channels(file, [layout[f"{name}/histogram"] for name in channels])
    return layout


def _check_same_channels(file: h5py.File, paths: list[str]) -> None:
    shapes = {where: dataset.shape[1:] for where in paths if isinstance(dataset := file.get(where), h5py.Dataset)}
    for where, shape in shapes.items():
        if len(shape) != 1 or shape != shapes[paths[0]]:
            raise BadInput(
                f"{file.filename}: {where} has spectra of shape {shape}, {paths[0]} of shape {shapes[paths[0]]}; "
                "all detector elements must have the same number of channels"
            )


def _stack(columns: Columns) -> Columns:
    def together(kind: str) -> NDArray[Any]:
        return np.stack([column for name, column in columns.items() if name.endswith(kind)], axis=1)

    return {
        "spectra": together("/histogram"),
        "dead_time_factor": dead_time_factor(total=together("/total"), dead=together("/dead")),
    }


def dead_time_factor(total: NDArray[Any], dead: NDArray[Any]) -> NDArray[np.float64]:
    """Return total / (total - dead); 1 where no clock ran, NaN where the channel was dead all the time."""
    clock = np.asarray(total, float)
    live = clock - np.asarray(dead, float)
    factor = np.divide(clock, live, out=np.full(clock.shape, np.nan), where=live > 0)
    return np.where(clock == 0, 1.0, factor)


PILC = HdfFormat(layout=_pilc, shape_of=shape_of)
COUNTERS = HdfFormat(layout=_counters, shape_of=shape_of)
XSPRESS3 = HdfFormat(layout=_xspress3, assemble=_stack, shape_of=shape_of)
