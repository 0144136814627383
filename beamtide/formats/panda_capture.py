"""What a PandABox captured, and its values in units as the mode of its header says. Pure."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.trigger import Columns

SAMPLES = "PCAP.SAMPLES.Value"


@dataclass(slots=True)
class Capture:
    """What was captured: columns, and to which index each row belongs where the messages say it."""

    columns: Columns = field(default_factory=dict)
    index: NDArray[np.int64] | None = None
    units: dict[str, str] = field(default_factory=dict)
    missed: int = 0
    """Triggers before the first row."""

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
    mean: bool
    units: str = ""


def capture(columns: Columns, fields: list[CapturedField], process: str, missed: int) -> Capture:
    """Return columns in units, as the mode of the header says."""
    if process not in ("Scaled", "Unscaled", "Raw"):
        raise BadInput(f"process: {process} is not known, only Scaled, Unscaled and Raw; capture Scaled")
    stated = {one.name: one.units.strip() for one in fields if one.units.strip()}
    return Capture(columns if process == "Scaled" else _scaled(columns, fields, sums=process == "Raw"), None, stated, missed)


def _scaled(columns: Columns, fields: list[CapturedField], *, sums: bool) -> Columns:
    """Return columns in units: x scale + offset; means may be `sums` over samples."""
    found: Columns = {}
    for one in fields:
        values = columns[one.name].astype(float)
        if one.mean and sums:
            if SAMPLES not in columns:
                raise BadInput(
                    f"{one.name} is a raw sum of unknown length without {SAMPLES}; capture that too, or capture Scaled values"
                )
            values = values / columns[SAMPLES]
        found[one.name] = values * one.scale + one.offset
    return found
