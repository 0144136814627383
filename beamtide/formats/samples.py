"""Captures with their own clock, as interferometers write them: columns of samples, brought to the gates of the exposures.

A frame is a gate: the samples in it and one neighbour on either side, each column as (gates, samples), NaN behind the last
sample; with `gate_start` and `gate_end` in seconds. A gate that the capture does not cover (`gating`) has no samples; gates
behind its last sample are missing. Text (`column_text`) or HDF5.

Options: `time` is the column of times, in the unit that its heading states, or `time_unit` ("counts": then `clock_rate` says what
one is). Gates come from the columns `gate_start` and `gate_end` (s, or as their file states) of the file `gates` beside the
capture ("{stem}_gates.h5", or a capture of a PandABox), by default of the capture itself; or from `trigger`, a column of the
capture that is high during each exposure. Its pulses must be as many as the scan has points: nobody can tell which is missing.
Clocks: gate time = `clock_offset` (s) + `clock_rate` x time. `phases` names columns of wrapped phases (rad, or as the heading
states): their whole turns since the first sample are added as NAME.turns. All other options are columns, ours: the file's.
"""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from beamtide import units
from beamtide.errors import BadInput
from beamtide.formats import column_text, gating, panda
from beamtide.formats.base import Extent, Missing, Unfinished
from beamtide.formats.column_text import ColumnTable
from beamtide.formats.gating import Array
from beamtide.formats.hdf5 import datasets, stated_unit
from beamtide.formats.opening import opened
from beamtide.formats.trigger import Columns

OWN = ("time", "time_unit", "gates", "gate_start", "gate_end", "trigger", "clock_offset", "clock_rate", "phases")
Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Gated:
    """A capture, its times in the clock of the gates, and the gates."""

    table: ColumnTable
    times: Array
    starts: Array
    ends: Array


@dataclass(frozen=True, slots=True)
class SamplesFormat:
    """A capture in one file, with its gates in it or beside it."""

    def probe(self, path: pathlib.Path, options: Options) -> Extent:
        """Say how many gates there are, and which lie behind the end of the capture."""
        found = _load(path, options)
        total = len(found.starts)
        there = np.flatnonzero(found.ends <= found.times[-1])
        held = int(there[-1]) + 1 if there.size else 0
        why = f"{path} ends before the exposures from number {held} on do"
        exact = f"nobody can tell which pulses of {options['trigger']!r} are missing" if "trigger" in options else ""
        return Extent(total, (Missing(held, total, why),) if held < total else (), exact=exact)

    def read(self, path: pathlib.Path, first: int, last: int, options: Options) -> Columns:
        """Return the samples of gates `first <= gate < last`."""
        found = _load(path, options)
        if not 0 <= first <= last <= len(found.starts):
            raise BadInput(f"{path}: gates {first} to {last} were asked for, of {len(found.starts)}; was it written again?")
        low, high = gating.ranges(found.times, found.starts, found.ends)
        width = max(1, int((high - low).max(initial=1)))  # of all gates, so that a result does not depend on how a scan was cut
        at = low[first:last, None] + np.arange(width)
        inside = at < high[first:last, None]
        at = np.where(inside, at, 0)
        columns = found.table.columns | {options["time"]: found.times}
        cut: Columns = {name: np.where(inside, values[at], np.nan) for name, values in columns.items()}
        return cut | {"gate_start": found.starts[first:last], "gate_end": found.ends[first:last]}

    def units(self, path: pathlib.Path, options: Options) -> dict[str, str]:
        """Return the units that the capture states."""
        return _named(_table(path, options), options, path).units | {options["time"]: "s", "gate_start": "s", "gate_end": "s"}

    def beside(self, path: pathlib.Path, options: Options) -> tuple[pathlib.Path, ...]:
        """Return the file of the gates."""
        return (path.parent / options["gates"].replace("{stem}", path.stem),) if "gates" in options else ()

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return None: a capture does not know its scan."""
        return None


def _load(path: pathlib.Path, options: Options) -> Gated:
    raw = _table(path, options)
    found = _named(raw, options, path)
    time, scale = found.columns[options["time"]], _seconds(options["time"], found.units, options, path)
    known = np.isfinite(time)
    times = _number(options, "clock_offset", 0.0, path) + _number(options, "clock_rate", 1.0, path) * scale * time[known]
    if not times.size:
        raise Unfinished(f"{path} holds no samples (yet)")
    if (back := np.flatnonzero(np.diff(times) <= 0)).size:
        raise BadInput(f"{path}: {options['time']} does not grow behind sample {back[0]}; was the clock restarted?")
    columns = {name: values[known] for name, values in found.columns.items()}
    for name in options.get("phases", "").split():
        turn = units.factor(found.units.get(name, "rad"), "rad") / (2 * np.pi)
        columns[f"{name}.turns"] = gating.turns(_wrapped(_column(columns, name, path) * turn, name, path), times)
    if "trigger" in options:
        starts, ends = gating.edges(_column(columns, options["trigger"], path), times)
    else:
        starts, ends = _gates(path, options)
    gating.check_gates(starts, ends)
    return Gated(ColumnTable(columns, found.units), times, starts, ends)


def _wrapped(phase: Array, name: str, path: pathlib.Path) -> Array:
    """Return a phase in turns; BadInput if it is none, or in another unit."""
    known = phase[np.isfinite(phase)]
    if known.size and np.ptp(known) > 1.001:
        raise BadInput(
            f"{path}: {name!r} spans {np.ptp(known):.3g} turns, so it is no wrapped phase in that unit; state its unit in "
            "the heading, or leave it out of options.phases if it is unwrapped already"
        )
    return phase


def _named(raw: ColumnTable, options: Options, path: pathlib.Path) -> ColumnTable:
    """Return the columns by the names that the options give them; all by their own if they give none."""
    if "time" not in options:
        raise BadInput(f"{path}: source.options: say which column is the time of the samples: time: NAME")
    chosen = {name: where for name, where in options.items() if name not in OWN}
    wanted = {name: name for name in (raw.columns if not chosen else ())} | chosen
    for needed in (options["time"], options.get("trigger", ""), *options.get("phases", "").split()):
        wanted |= {needed: wanted.get(needed, needed)} if needed else {}
    columns = {name: _column(raw.columns, where, path) for name, where in wanted.items()}
    return ColumnTable(columns, {name: raw.units[where] for name, where in wanted.items() if where in raw.units})


def _column(columns: Mapping[str, Array], name: str, path: pathlib.Path) -> Array:
    if name not in columns:
        raise BadInput(f"{path} has no column {name!r}, only {', '.join(sorted(columns))}; correct source.options")
    return columns[name]


def _table(path: pathlib.Path, options: Options) -> ColumnTable:
    """Return the columns of a capture, text or HDF5 (there only those that the options name)."""
    if h5py.is_hdf5(path):
        places = [where for name, where in options.items() if name not in OWN]
        own = [options[name] for name in ("time", "trigger", "phases") if name in options]
        return _hdf5(path, {*places, *(" ".join(own).split() if own else [])} - (options.keys() - set(OWN)))
    try:
        content = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise Unfinished(f"{path} cannot be read ({error.strerror})") from error
    try:
        return column_text.table(content)
    except Unfinished as error:
        raise Unfinished(f"{path}: {error}") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _hdf5(path: pathlib.Path, places: set[str]) -> ColumnTable:
    with opened(path) as file:
        found = datasets(file, {place: place for place in places})
        if wrong := [name for name, one in found.items() if one.ndim != 1 or one.dtype.kind not in "biuf"]:
            raise BadInput(f"{path}: {wrong[0]} is no column of numbers")
        length = min(map(len, found.values()))
        columns = {name: np.asarray(one[:length], float) for name, one in found.items()}
        return ColumnTable(columns, {name: unit for name, one in found.items() if (unit := stated_unit(one))})


def _gates(path: pathlib.Path, options: Options) -> tuple[Array, Array]:
    """Return start and end of the gates, in seconds of their own clock."""
    if "gate_start" not in options or "gate_end" not in options:
        raise BadInput(f"{path}: source.options: say where the exposures are: gate_start and gate_end, or trigger")
    names = [options["gate_start"], options["gate_end"]]
    file = next(iter(SamplesFormat().beside(path, options)), path)
    if h5py.is_hdf5(file):
        table = _hdf5(file, set(names))
    elif panda.begins_as_one(file):
        read = panda.FORMAT.read(file, 0, panda.FORMAT.probe(file, {}).frames, {})
        table = ColumnTable({name: np.asarray(one, float) for name, one in read.items()}, panda.FORMAT.units(file, {}))
    else:
        table = _table(file, {})
    starts, ends = (_column(table.columns, name, file) * units.factor(table.units.get(name, "s"), "s") for name in names)
    return starts, ends


def _seconds(name: str, stated: Mapping[str, str], options: Options, path: pathlib.Path) -> float:
    """Return what one unit of the time column is, in seconds."""
    said, found = options.get("time_unit"), stated.get(name)
    if said is None and found is None:
        raise BadInput(f"{path} does not say in which unit {name!r} is; set time_unit in source.options")
    if said and found and units.canonical(said) != units.canonical(found):
        raise BadInput(f"{path} gives {name!r} in {found}, but source.options.time_unit says {said}; leave it out")
    unit = said or found or ""
    if units.kind_of(unit) == units.NUMBER and "clock_rate" in options:
        return 1.0
    return units.factor(unit, "s")


def _number(options: Options, name: str, default: float, path: pathlib.Path) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or (name == "clock_rate" and value <= 0):
        raise BadInput(f"{path}: source.options.{name} is {options[name]!r}; expected a number")
    return value


FORMAT = SamplesFormat()
