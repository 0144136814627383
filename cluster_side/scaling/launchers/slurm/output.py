"""Parses the output of Slurm's commands, in full or not at all. Pure.

Theory: Slurm's text output keeps its format from version to version, its JSON does not, and is 20 times slower. Each line ends
with a marker, so a line that was cut short is noticed; one line that is not understood makes the whole answer unknown, because a
job that is missing from a listing would count as ended. A state that this table does not know is UNKNOWN: alive.

Sources: squeue(1), sacct(1), sbatch(1), sinfo(1) of Slurm 22.05 to 26.05.
Invariants: no function raises anything but `NotUnderstood`, whatever the text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cluster_side.scaling.launchers.base import EndCause, Phase, Sighting

END = "|end"
SQUEUE_FIELDS = f"JobArrayID:|,State:|,RestartCnt:|,Reason:|,exit_code:|,StartTime:|,NodeList:|,Comment:{END}"
"""For `squeue --Format`; the comment, which may hold any character, comes last."""
SACCT_FIELDS = "JobID,State,ExitCode"
"""For `sacct --parsable2 --format`."""
SINFO_FIELDS = "%R|%a|%D|%c|%m|%G|end"
"""For `sinfo --format`."""
MOST_ELEMENTS = 4_000_001
"""Slurm's own bound of MaxArraySize."""
PLACES_OF_LAUNCH = {69, 126, 127, 255}
"""Exit codes of a shell, a container program, or our own script (69) that could not start the program."""
LAUNCH_SIGNAL = 53
"""The "signal" that slurmd reports when it could not open the log file or enter the folder of a job."""

_PENDING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "POWER_UP_NODE")
_RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "EXPEDITING")
STATES: Mapping[str, tuple[Phase, EndCause | None]] = {
    **dict.fromkeys(_PENDING, (Phase.PENDING, None)),
    **dict.fromkeys(_RUNNING, (Phase.RUNNING, None)),
    "COMPLETED": (Phase.ENDED, EndCause.DONE),
    "BOOT_FAIL": (Phase.FAILED, EndCause.NODE),
    "NODE_FAIL": (Phase.FAILED, EndCause.NODE),
    "LAUNCH_FAILED": (Phase.FAILED, EndCause.START),
    "RECONFIG_FAIL": (Phase.FAILED, EndCause.NODE),
    "CANCELLED": (Phase.FAILED, EndCause.CANCELLED),
    "REVOKED": (Phase.FAILED, EndCause.CANCELLED),
    "DEADLINE": (Phase.FAILED, EndCause.TIMEOUT),
    "TIMEOUT": (Phase.FAILED, EndCause.TIMEOUT),
    "PREEMPTED": (Phase.FAILED, EndCause.PREEMPTED),
    "OUT_OF_MEMORY": (Phase.FAILED, EndCause.MEMORY),
    "FAILED": (Phase.FAILED, EndCause.CODE),
}
"""Slurm's names of job states, and what they mean for us."""

_JOB = re.compile(r"(\d{1,10})(?:_(?:(\d{1,7})|\[([\d,:%-]+)\]))?")
_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?")
_SUBMITTED = re.compile(r"(\d{1,10})(?:;([\w.-]{1,64}))?")
_CLUSTER = re.compile(r"CLUSTER: ([\w.-]{1,64})")
_STATE = re.compile(r"([A-Z][A-Z_]*)\+?(?: by .*)?")


class NotUnderstood(ValueError):
    """The output of Slurm does not have the expected format."""


@dataclass(frozen=True, slots=True)
class NodeKind:
    """Like nodes of a partition: `memory_mb` in MiB; `gres` as Slurm prints it."""

    partition: str
    up: bool
    nodes: int
    cpus: int
    memory_mb: int
    gres: str


def submitted(text: str, count: int) -> tuple[str, ...]:
    """Return the ids of the elements of a submission, from what `sbatch --parsable` printed: "1234" or "1234;cluster"."""
    if (found := _SUBMITTED.fullmatch(text.strip())) is None:
        raise NotUnderstood(f"sbatch printed {_short(text)} where a job id was expected")
    job, cluster = found.group(1), f";{found.group(2)}" if found.group(2) else ""
    return tuple(f"{job}_{number}{cluster}" for number in range(count)) if count > 1 else (job + cluster,)


def jobs(text: str) -> dict[str, Sighting]:
    """Return all jobs that `squeue --array --Format=SQUEUE_FIELDS` printed, by id; also of several clusters."""
    found, cluster = {}, ""
    for line in _lines(text):
        if (head := _CLUSTER.fullmatch(line)) is not None:
            cluster = f";{head.group(1)}"
            continue
        for sighting in _sightings(line, cluster):
            found[sighting.id] = sighting
    return found


def accounts(text: str) -> dict[str, tuple[Phase, EndCause | None]]:
    """Return how jobs ended, by id, from `sacct --allocations --noheader --parsable2 --format=SACCT_FIELDS`."""
    found = {}
    for line in _lines(text):
        fields = line.split("|")
        if len(fields) != 3 or not fields[0] or not re.fullmatch(r"\d+:\d+", fields[2]):
            raise NotUnderstood(f"sacct printed {_short(line)}")
        code, signal = (int(word) for word in fields[2].split(":"))
        for job in _ids(fields[0], ""):
            found[job] = outcome(fields[1], min(code, 255) << 8 | signal & 0x7F)
    return found


def nodes(text: str) -> tuple[NodeKind, ...]:
    """Return the kinds of nodes that `sinfo --exact --noheader --format=SINFO_FIELDS` printed."""
    found = []
    for line in _lines(text):
        fields = line.split("|")
        if len(fields) != 7 or fields[6] != "end" or not all(field.rstrip("+").isdecimal() for field in fields[2:5]):
            raise NotUnderstood(f"sinfo printed {_short(line)}")
        count, cpus, memory = (int(field.rstrip("+")) for field in fields[2:5])
        found.append(NodeKind(fields[0], fields[1] == "up", count, cpus, memory, fields[5]))
    return tuple(found)


def array_bound(text: str) -> int | None:
    """Return MaxArraySize (one more than the highest index) from `scontrol show config`."""
    found = re.search(r"^MaxArraySize\s*= (\d{1,7})$", text, re.MULTILINE)
    return int(found.group(1)) if found else None


def outcome(state: str, status: int) -> tuple[Phase, EndCause | None]:
    """Return what a state means; `status` is the exit status as wait(2) has it."""
    word = _STATE.fullmatch(state)
    phase, cause = STATES.get(word.group(1) if word else "", (Phase.UNKNOWN, None))
    if cause is EndCause.CODE and (status >> 8 in PLACES_OF_LAUNCH or status & 0x7F == LAUNCH_SIGNAL):
        cause = EndCause.START
    return phase, cause


def elements(job: str, expression: str) -> Iterator[str]:
    """Yield the ids of the elements "0-5,8,10-20:2" of an array; a limit of running ones ("%4") is ignored."""
    for piece in expression.partition("%")[0].split(","):
        if (found := _RANGE.fullmatch(piece)) is None:
            raise NotUnderstood(f"{_short(expression)} are not elements of an array")
        first, last = int(found.group(1)), int(found.group(2) or found.group(1))
        step = int(found.group(3) or 1)
        if step == 0 or last >= MOST_ELEMENTS:
            raise NotUnderstood(f"{_short(expression)} are not elements of an array")
        yield from (f"{job}_{number}" for number in range(first, last + 1, step))


def hosts(text: str) -> tuple[str, ...]:
    """Return the names of "node[1-3,07],gpu2"; what is not understood stays one name. For display and for lists of bad nodes."""
    names: list[str] = []
    for piece in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", text):
        found = re.fullmatch(r"([^\[\]]*)\[([\d,-]+)\]([^\[\]]*)", piece)
        names += [found.group(1) + number + found.group(3) for number in _numbers(found.group(2))] if found else [piece]
    return tuple(names)


def _numbers(text: str) -> Iterator[str]:
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) - int(first) > 100_000:
            yield piece
            continue
        yield from (f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1))


def _sightings(line: str, cluster: str) -> Iterator[Sighting]:
    fields = line.split("|", 7)
    if len(fields) != 8 or not line.endswith(END) or not fields[1] or not (fields[2].isdecimal() and fields[4].isdecimal()):
        raise NotUnderstood(f"squeue printed {_short(line)}")
    restarts, status, comment = int(fields[2]), int(fields[4]), fields[7].removesuffix(END)
    phase, cause = outcome(fields[1], status)
    begun = _time(fields[5])
    for job in _ids(fields[0], cluster):
        yield Sighting(
            id=job,
            token="" if comment == "(null)" else comment,
            phase=phase,
            reason=_reason(fields[1], fields[3], phase),
            nodes=hosts(fields[6]),
            expected_start=begun if phase is Phase.PENDING else None,
            started=None if phase is Phase.PENDING else begun,
            restarts=restarts,
            cause=cause,
        )


def _reason(state: str, reason: str, phase: Phase) -> str:
    """Slurm's reason; without one, or where the state itself says more, the state."""
    said = "" if reason in ("None", "(null)") else reason
    return state if phase is Phase.UNKNOWN or (not said and phase is not Phase.RUNNING) else said


def _ids(text: str, cluster: str) -> Iterator[str]:
    if (found := _JOB.fullmatch(text)) is None:
        raise NotUnderstood(f"{_short(text)} is not a job id")
    job, element, many = found.groups()
    if many is not None:
        yield from (name + cluster for name in elements(job, many))
    else:
        yield (f"{job}_{element}" if element is not None else job) + cluster


def _time(text: str) -> float | None:
    """Unix seconds; the commands are run with SLURM_TIME_FORMAT=%s."""
    if text in ("N/A", "", "0", "Unknown"):
        return None
    if not text.isdecimal():
        raise NotUnderstood(f"{_short(text)} is not a time in seconds")
    return float(text)


def _lines(text: str) -> Iterator[str]:
    if text and not text.endswith("\n"):
        raise NotUnderstood(f"the answer was cut short after {_short(text[-40:])}")
    yield from (line.rstrip() for line in text.split("\n") if line.strip())


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "…")
