"""What a PandABox captured, and its values in units as the mode of its header says. Pure."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.trigger import Columns

DURATIONS = ("PCAP.GATE_DURATION.Value", "PCAP.SAMPLES.Value")
"""How long the gate of a trigger was open, in the ticks over which a raw mean is a sum; the second is that of older servers."""


@dataclass(slots=True)
class Capture:
    """What was captured: columns, and to which index each row belongs where the messages say it."""

    columns: Columns = field(default_factory=dict)
    index: NDArray[np.int64] | None = None
    units: dict[str, str] = field(default_factory=dict)
    missed: int = 0
    """Triggers before the first row."""
    unplaced: str = ""
    """Why nobody knows to which triggers some of the rows belong; "": all are known."""

    @property
    def rows(self) -> int:
        """Triggers that were captured."""
        return len(next(iter(self.columns.values()), ()))


@dataclass(frozen=True, slots=True)
class CapturedField:
    """A field of the header: its value is `scale` x number + `offset`, in `units`."""

    name: str
    scale: float
    offset: float
    units: str = ""


def capture(columns: Columns, fields: list[CapturedField], process: str, missed: int) -> Capture:
    """Return columns in units, as the mode of the header says."""
    if process not in ("Scaled", "Unscaled", "Raw"):
        raise BadInput(f"process: {process} is not known, only Scaled, Unscaled and Raw; capture Scaled")
    stated = {one.name: one.units.strip() for one in fields if one.units.strip()}
    return Capture(columns if process == "Scaled" else _scaled(columns, fields, sums=process == "Raw"), None, stated, missed)


def _scaled(columns: Columns, fields: list[CapturedField], *, sums: bool) -> Columns:
    """Return columns in units: x scale + offset; means may be `sums` over the gate. As pandablocks computes them, bit by bit."""
    found: Columns = {}
    for one in fields:
        values = columns[one.name].astype(float) * one.scale
        if one.name.endswith(".StdDev"):
            if sums:
                raise BadInput(f"{one.name} is no deviation yet in a raw capture; capture Scaled values")
            found[one.name] = np.abs(values)
            continue
        if one.name.endswith(".Mean") and sums:
            values = _per_duration(one.name, values, columns)
        found[one.name] = values + one.offset
    return found


def _per_duration(name: str, sums: NDArray[np.float64], columns: Columns) -> NDArray[np.float64]:
    """Return means of sums over the gate; NaN where it was never open."""
    duration = next((columns[one] for one in DURATIONS if one in columns), None)
    if duration is None:
        raise BadInput(
            f"{name} is a raw sum of unknown length without {DURATIONS[0]}; capture PCAP.GATE_DURATION, or Scaled values"
        )
    return np.asarray(np.divide(sums, duration, out=np.full(len(sums), np.nan), where=duration > 0))
