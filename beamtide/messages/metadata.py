"""Scans and settings: what is measured, and with which settings it is processed. The metadata server keeps both in SQLite."""

import msgspec

from beamtide.messages.base import Digest, Message, ScanId


class Scan(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One scan: `shape` is (slow, fast) for a map, (points,) for a line; its product is the number of indexes.

    `axes` names the motors, slowest first; `snake` says that every second line runs backwards; `period` is the expected
    time of one point in seconds (0 = unknown); `info` carries what else was measured (energy in eV, sample, title ...).
    """

    id: ScanId
    shape: tuple[int, ...]
    axes: tuple[str, ...] = ()
    snake: bool = False
    period: float = 0.0
    info: dict[str, str] = {}


class ScanAnnounced(Message, frozen=True, kw_only=True):
    """A scan will start, `in_seconds` from now."""

    scan: Scan
    in_seconds: float = 0.0


class ScanStarted(Message, frozen=True, kw_only=True):
    """A scan runs (whether announced before or not); `at` is Unix time in seconds, for display only."""

    scan: Scan
    at: float = 0.0


class ScanEnded(Message, frozen=True, kw_only=True):
    """No further frames will come; `points` were measured, which may be fewer than planned (-1 = as planned)."""

    scan: ScanId
    points: int = -1
    at: float = 0.0


class ScanState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A scan as the metadata server knows it; `points` is what was measured once it has ended, else what is planned.

    `phase` is "announced", "running" or "ended"; times are Unix time in seconds (UTC), for display only.
    """

    scan: Scan
    phase: str
    points: int
    version: int
    started: float = 0.0
    ended: float = 0.0
    starts_in: float = 0.0
    """As announced: seconds from this version to the first frame."""
    rounds: dict[str, int] = {}
    """Pipeline -> how often the scan was started over in it; each time is a product of its own."""


class ReprocessRequest(Message, frozen=True, kw_only=True):
    """Start a scan over in these pipelines: from now on, its products are those of this round (pipeline -> round)."""

    scan: ScanId
    rounds: dict[str, int]


class ScansRequest(Message, frozen=True, kw_only=True):
    """Answer with `Scans` that changed after version `after`, or after `wait` seconds in any case."""

    after: int = 0
    wait: float = 0.0
    scan: ScanId = ScanId("")


class Scans(Message, frozen=True, kw_only=True):
    """Scans that match, and the server's version."""

    scans: tuple[ScanState, ...]
    version: int


class SettingsDocument(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Settings of a modality. Its digest covers exactly these fields, in canonical JSON.

    `values` is the settings mapping as canonical JSON; `calibration` names the files it needs, by digest; `upstream` the settings
    of the pipelines whose datasets it takes, so that a change there changes this digest; `source`, as canonical JSON, what
    decides which numbers are read ("": not stated, as before 0.2, or others make the tasks); `upstream` holds its digest.
    """

    modality: str
    values: str
    calibration: dict[str, Digest] = {}
    upstream: dict[str, Digest] = {}
    source: str = ""


class PutSettingsRequest(Message, frozen=True, kw_only=True):
    """Keep this document; answered `Put`."""

    document: SettingsDocument


class PutFileRequest(Message, frozen=True, kw_only=True):
    """Keep this calibration file (at most 64 MiB); answered `Put`."""

    name: str
    content: bytes


class Put(Message, frozen=True, kw_only=True):
    """It is on disk under this digest."""

    digest: Digest


class GetSettingsRequest(Message, frozen=True, kw_only=True):
    """Answered `SettingsAnswer`, or `Refused` when nothing has that digest."""

    digest: Digest


class SettingsAnswer(Message, frozen=True, kw_only=True):
    """A settings document."""

    document: SettingsDocument


class GetFileRequest(Message, frozen=True, kw_only=True):
    """Answered `File`, or `Refused` when nothing has that digest."""

    digest: Digest


class File(Message, frozen=True, kw_only=True):
    """A calibration file as it was put."""

    name: str
    content: bytes


class ListSettingsRequest(Message, frozen=True, kw_only=True):
    """Answered `SettingsList`, newest first."""

    modality: str = ""


class SettingsList(Message, frozen=True, kw_only=True):
    """Digests and documents."""

    documents: tuple[tuple[Digest, SettingsDocument], ...]
