"""What a PandABox captured, and its values in units as the mode of its header says. Pure."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.trigger import Columns

DURATIONS = ("PCAP.GATE_DURATION.Value", "PCAP.SAMPLES.Value")
"""The columns that say over how many clock ticks a raw mean was summed; the second is its name in old versions."""
WHOLE = ("Ok", "Disarmed")
"""What the END of an arming says if no trigger came after its last row."""


@dataclass(slots=True)
class Capture:
    """What was captured: columns, and to which index each row belongs where the messages say it."""

    columns: Columns = field(default_factory=dict)
    index: NDArray[np.int64] | None = None
    units: dict[str, str] = field(default_factory=dict)
    missed: int = 0
    """Triggers before the first row."""
    cut: str = ""
    """Why no triggers are there after the last row, though they came."""
    corrupt: int = 0
    """Rows at the end that may hold anything."""
    unsure: str = ""
    """Why rows in the middle belong to nobody knows which trigger, unless a column counts triggers."""

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


@dataclass(frozen=True, slots=True)
class Arming:
    """One arming: its numbers as they were sent, and what its header and its END say."""

    columns: Columns
    fields: list[CapturedField]
    process: str
    missed: int
    end: str | None
    """The reason at its END; None as long as there is none."""
    corrupt: int = 0
    """Rows at the end that may hold anything."""

    @property
    def rows(self) -> int:
        """Triggers that were captured."""
        return len(next(iter(self.columns.values()), ()))


def capture(armings: list[Arming]) -> Capture:
    """Return what was captured while it was armed, in units; each arming goes on counting where the one before ended."""
    if any(one.fields != armings[0].fields or one.process != armings[0].process for one in armings):
        raise BadInput("it was armed several times, with different fields; write a file for each")
    first, last = armings[0], armings[-1]
    columns = {name: np.concatenate([one.columns[name] for one in armings]) for name in first.columns}
    found = Capture(in_units(columns, first.fields, first.process), missed=first.missed)
    found.units = {one.name: one.units.strip() for one in first.fields if one.units.strip()}
    begins = np.cumsum([0, *(one.missed + one.rows for one in armings)])
    if len(armings) > 1:
        rows = [begin + one.missed + np.arange(one.rows) for begin, one in zip(begins, armings, strict=False)]
        found.index, found.missed = np.concatenate(rows), 0
    if last.end is not None and last.end not in WHOLE:
        behind = begins[-1] - last.corrupt
        found.cut = f"the PandABox ended the capture with {last.end!r} and lost all triggers from number {behind} on"
        found.corrupt = last.corrupt
    found.unsure = _unsure(armings)
    return found


def _unsure(armings: list[Arming]) -> str:
    """Say why nobody knows to which trigger rows of a later arming belong; "" if that is known."""
    for number, one in enumerate(armings[:-1], 1):
        if one.end not in WHOLE and any(later.rows for later in armings[number:]):
            return (
                f"arming {number} of {len(armings)} ended with {one.end!r}, so nobody knows how many triggers it lost: capture a "
                "counter of triggers, and name it in options.trigger"
            )
    return ""


def in_units(columns: Columns, fields: list[CapturedField], process: str) -> Columns:
    """Return columns in units: as they are, or x scale + offset; raw means are sums over the time of the gate."""
    if process not in ("Scaled", "Unscaled", "Raw"):
        raise BadInput(f"process: {process} is not known, only Scaled, Unscaled and Raw; capture Scaled")
    if process == "Scaled":
        return columns
    ticks = next((columns[name] for name in DURATIONS if name in columns), None)
    found: Columns = {}
    for one in fields:
        values = columns[one.name].astype(float)
        if process == "Raw" and one.name.endswith(".StdDev"):
            raise BadInput(f"{one.name} of a raw capture is no number but sums of squares; capture Scaled values")
        if process == "Raw" and one.name.endswith(".Mean"):
            if ticks is None:
                raise BadInput(f"{one.name} is a raw sum over an unknown time: capture PCAP.GATE_DURATION too, or Scaled values")
            values = np.divide(values, ticks, out=np.full(len(values), np.nan), where=ticks > 0)
        found[one.name] = values * one.scale + one.offset
    return found
