"""The metadata server's core: scans, and the settings and calibration files with which they are processed.

Theory: scans go announced → running → ended and never back; a scan id is used once. Settings documents and files are kept under
the digest of their content, so storing them twice changes nothing, and they can never be changed.

Clock policy: none; times in messages are for display. Everything is on disk before it is answered.
Invariants: the version of a scan is unique and grows; documents and files hash to their key.
"""

import json
from dataclasses import dataclass, field

import msgspec

from beamline_side.cores.pending_requests import Asker, PendingRequests
from beamtide.config.section import NAME
from beamtide.config.settings import MAX_CALIBRATION, SOURCE, UNSTATED, canonical, digest_of, digest_of_bytes
from beamtide.machine import Effect, Event, Heard, Keep, Peer, Send, Shelf, Unreachable, WakeAt
from beamtide.messages import Message, Ok, Refused, Unsupported
from beamtide.messages import metadata as m
from beamtide.messages.base import Digest, ScanId, Seconds, kind_of

MOST_POINTS = 100_000_000
RETRY = 2.0
"""Seconds after which a document or file that found no room may be stored again."""
_encode = msgspec.msgpack.encode


@dataclass(slots=True)
class MetadataMachine:
    """The core of the metadata server."""

    shelf: Shelf
    _scans: dict[ScanId, m.ScanState] = field(default_factory=dict)
    _documents: dict[Digest, m.SettingsDocument] = field(default_factory=dict)
    _files: set[Digest] = field(default_factory=set)
    _version: int = 0
    _waiting: PendingRequests[Peer, m.ScansRequest] = field(default_factory=PendingRequests)

    def __post_init__(self) -> None:
        for _, body in self.shelf.rows("scan"):
            state = msgspec.msgpack.decode(body, type=m.ScanState)
            self._scans[state.scan.id] = state
            self._version = max(self._version, state.version)
        for key, body in self.shelf.rows("settings"):
            self._documents[Digest(key.partition(" ")[2])] = msgspec.msgpack.decode(body, type=m.SettingsDocument)
        self._files = {Digest(key) for key, _ in self.shelf.rows("file_name")}

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        if isinstance(event, Unreachable):
            self._waiting.forget(event)
        elif isinstance(event, Heard) and isinstance(event.message, m.ScansRequest):
            deadline = self._waiting.add(event.peer, event, event.message, now, event.message.wait)
            effects.append(WakeAt(Seconds(deadline)))
        elif isinstance(event, Heard):
            kept, answer = self._take(event.message)
            effects += [*kept, Send(event.peer, answer, event.id)]
        return effects + self._answer_scans(now)

    def progress(self) -> dict[str, float]:
        """Return how many scans and settings there are."""
        running = sum(state.phase == "running" for state in self._scans.values())
        return {"scans": len(self._scans), "running": running, "settings": len(self._documents)}

    def why(self) -> str:
        """Nothing waits here."""
        return ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        versions = [state.version for state in self._scans.values()]
        assert len(set(versions)) == len(versions), "two scans have the same version"
        assert all(digest_of(document) == digest for digest, document in self._documents.items()), "settings under a wrong digest"

    def _take(self, message: Message) -> tuple[list[Effect], Message]:
        match message:
            case m.ScanAnnounced(scan=scan, in_seconds=in_seconds):
                return self._scan(scan, "announced", 0.0, in_seconds)
            case m.ScanStarted(scan=scan, at=at):
                return self._scan(scan, "running", at)
            case m.ScanEnded():
                return self._ended(message)
            case m.ReprocessRequest(scan=scan, rounds=rounds):
                return self._started_over(scan, rounds)
            case m.PutSettingsRequest(document=document):
                return self._put_settings(document)
            case m.PutFileRequest(name=name, content=content):
                return self._put_file(name, content)
            case m.GetSettingsRequest(digest=digest):
                found = self._documents.get(digest)
                return [], m.SettingsAnswer(document=found) if found else _nothing("settings", digest)
            case m.GetFileRequest(digest=digest):
                return [], self._file(digest)
            case m.ListSettingsRequest(modality=modality):
                newest = reversed(self._documents.items())
                return [], m.SettingsList(documents=tuple(one for one in newest if modality in ("", one[1].modality)))
        return [], Unsupported(kind=kind_of(message))

    def _scan(self, scan: m.Scan, phase: str, at: float, starts_in: float = 0.0) -> tuple[list[Effect], Message]:
        points = 1
        for length in scan.shape:
            points *= length
            if points > MOST_POINTS:
                break  # before a shape of a million axes makes the number itself too long
        if not NAME.fullmatch(scan.id):
            return [], Refused(reason=f"scan id {scan.id[:80]!r}: use letters, digits, or _ . + -, no leading dot")
        if not scan.shape or min(scan.shape) < 1 or points > MOST_POINTS:
            return [], Refused(reason=f"{scan.id}: shape {scan.shape[:8]} has no points or more than {MOST_POINTS}")
        known = self._scans.get(scan.id)
        if known is not None and known.phase == "ended":
            return [], Refused(reason=f"{scan.id} has ended already; scan ids are used once, give the new scan another one")
        if known is not None and known.phase == "running" and known.scan != scan:
            return [], Refused(reason=f"{scan.id} runs already with shape {known.scan.shape}; give the new scan another id")
        if known is not None and (known.phase == "running" or (known.phase == phase and known.scan == scan)):
            return [], Ok()
        state = m.ScanState(scan=scan, phase=phase, points=points, version=0, started=at, starts_in=max(0.0, starts_in))
        return self._keep(state), Ok()

    def _ended(self, message: m.ScanEnded) -> tuple[list[Effect], Message]:
        known = self._scans.get(message.scan)
        if known is None:
            return [], Refused(reason=f"{message.scan} cannot end: it was never started here")
        if known.phase == "ended":
            same = message.points in (-1, known.points)
            return [], Ok() if same else Refused(reason=f"{message.scan} ended already, with {known.points} points")
        if message.points > known.points:
            return [], Refused(
                reason=f"{message.scan} has {known.points} points by its shape, it cannot end with {message.points}"
            )
        points = known.points if message.points < 0 else message.points
        state = msgspec.structs.replace(known, phase="ended", points=points, ended=message.at)
        return self._keep(state), Ok()

    def _started_over(self, scan: ScanId, rounds: dict[str, int]) -> tuple[list[Effect], Message]:
        known = self._scans.get(scan)
        if known is None:
            return [], Refused(reason=f"{scan} cannot be started over: it was never started here")
        newer = {name: number for name, number in rounds.items() if number > known.rounds.get(name, 0)}
        newer |= {name: number for name, number in rounds.items() if number == UNSTATED and name not in known.rounds}
        if not newer:
            return [], Ok()
        return self._keep(msgspec.structs.replace(known, rounds=known.rounds | newer)), Ok()

    def _keep(self, state: m.ScanState) -> list[Effect]:
        self._version += 1
        self._scans[state.scan.id] = state = msgspec.structs.replace(state, version=self._version)
        return [Keep("scan", state.scan.id, _encode(state))]

    def _put_settings(self, document: m.SettingsDocument) -> tuple[list[Effect], Message]:
        try:
            values = json.loads(document.values)
            clean = msgspec.structs.replace(document, values=canonical(values))
            digest = digest_of(clean)
        except (ValueError, RecursionError) as error:
            return [], Refused(reason=f"the values of the settings are not JSON: {error}")
        if not isinstance(values, dict):
            return [], Refused(reason="the values of the settings are no mapping of names to values")
        if document.upstream.get(SOURCE, "") != (digest_of_bytes(document.source.encode()) if document.source else ""):
            return [], Refused(reason="the settings name another source than the one that they hold")
        missing = sorted(set(document.calibration.values()) - self._files)
        if missing:
            return [], Refused(reason=f"put the calibration file {missing[0][:12]}… first, then the settings that name it")
        if digest in self._documents:
            return [], m.Put(digest=digest)
        if full := self.shelf.room(0):
            return [], Refused(reason=full, retry_after=RETRY)
        order = len(self._documents)
        self._documents[digest] = clean
        return [Keep("settings", f"{order:09d} {digest}", _encode(clean))], m.Put(digest=digest)

    def _put_file(self, name: str, content: bytes) -> tuple[list[Effect], Message]:
        if len(content) > MAX_CALIBRATION:
            return [], Refused(reason=f"{name} has {len(content) >> 20} MiB, at most {MAX_CALIBRATION >> 20} MiB are kept")
        digest = digest_of_bytes(content)
        if digest in self._files:
            return [], m.Put(digest=digest)
        if full := self.shelf.room(len(content)):
            return [], Refused(reason=full, retry_after=RETRY)
        self._files.add(digest)
        return [Keep("file", digest, content), Keep("file_name", digest, name.encode())], m.Put(digest=digest)

    def _file(self, digest: Digest) -> Message:
        if digest not in self._files:
            return _nothing("file", digest)
        return m.File(name=self.shelf.read("file_name", digest).decode(), content=self.shelf.read("file", digest))

    def _answer_scans(self, now: Seconds) -> list[Effect]:
        ready = [(key, states) for key, asker in self._waiting.items() if (states := self._newer(asker.message))]
        answers: list[Effect] = [self._to(asker, states) for key, states in ready if (asker := self._waiting.take(key))]
        answers += [self._to(asker, []) for _, asker in self._waiting.expired(now)]
        return answers

    def _newer(self, request: m.ScansRequest) -> list[m.ScanState]:
        found = [one for one in self._scans.values() if one.version > request.after and request.scan in ("", one.scan.id)]
        return sorted(found, key=lambda state: state.version)

    def _to(self, asker: Asker[m.ScansRequest], states: list[m.ScanState]) -> Send:
        return Send(asker.peer, m.Scans(scans=tuple(states), version=self._version), asker.id)


def _nothing(what: str, digest: str) -> Refused:
    return Refused(reason=f"there is no {what} with digest {digest[:12]}…; put it first")
