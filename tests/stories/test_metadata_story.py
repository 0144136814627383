"""Random stories of the metadata server against plain dictionaries: the life of scans, settings and files by digest, crashes."""

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beamline_side.cores.metadata import MetadataMachine
from beamtide.config.settings import canonical, digest_of, digest_of_bytes
from beamtide.machine import Effect, Event, Heard, Send, Unreachable
from beamtide.messages import metadata as m
from beamtide.messages.base import Digest, Message, Ok, Refused, ScanId, Unsupported
from beamtide.messages.results import ListRequest
from tests.stories.shelf import Shelf

SCANS = st.sampled_from("ab")
SHAPES = st.sampled_from([(4, 5), (4, 5), (4, 5), (7,)])
PHASES = ["announced", "running", "ended"]


class MetadataStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.ids = 0
        self.shelf = Shelf()
        self.machine = MetadataMachine(self.shelf)
        self.scans: dict[str, m.ScanState] = {}
        self.version = 0
        self.documents: dict[str, m.SettingsDocument] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.watching: dict[tuple[bytes, int], tuple[m.ScansRequest, float]] = {}

    # --- the process -------------------------------------------------------------------------------------------------

    def tell(self, events: list[Event]) -> list[Effect]:
        effects = self.shelf.batch(self.machine, events, self.time)
        self.shelf.commit()
        self.machine.check()
        for effect in effects:
            if isinstance(effect, Send) and effect.peer != b"me":
                self.judge(effect)
        return effects

    def ask(self, message: Message, crash: bool = False) -> Message:
        """Ask; `crash`: the first time the process dies before its commit, so that we ask again."""
        self.ids += 1
        if crash:
            self.shelf.batch(self.machine, [Heard(b"me", message, self.ids)], self.time)
            self.restart()
        effects = self.tell([Heard(b"me", message, self.ids)])
        (answer,) = [one.message for one in effects if isinstance(one, Send) and one.peer == b"me"]
        return answer

    def restart(self) -> None:
        self.shelf.crash()
        self.machine = MetadataMachine(self.shelf)
        self.machine.check()
        self.watching.clear()

    def judge(self, sent: Send) -> None:
        request, deadline = self.watching.pop((sent.peer, sent.reply_to))
        assert sent.message == m.Scans(scans=tuple(self.news(request)), version=self.version)
        assert self.news(request) or self.time >= deadline, "told too early that there is nothing"

    def news(self, request: m.ScansRequest) -> list[m.ScanState]:
        states = [one for scan, one in self.scans.items() if request.scan in ("", scan) and one.version > request.after]
        return sorted(states, key=lambda one: one.version)

    def keep(self, scan: m.Scan, phase: str, points: int, started: float, ended: float = 0.0) -> None:
        announced = phase == "announced" or (scan.id in self.scans and self.scans[scan.id].starts_in > 0 and phase == "ended")
        self.version += 1
        self.scans[scan.id] = m.ScanState(
            scan=scan,
            phase=phase,
            points=points,
            version=self.version,
            started=started,
            ended=ended,
            starts_in=3.0 if announced else 0.0,
        )

    # --- scans -------------------------------------------------------------------------------------------------------

    @rule(name=SCANS, shape=SHAPES, start=st.booleans(), crash=st.booleans())
    def announce_or_start(self, name: str, shape: tuple[int, ...], start: bool, crash: bool) -> None:
        scan, known = m.Scan(id=ScanId(name), shape=shape), self.scans.get(name)
        phase = "running" if start else "announced"
        reason = ""
        if known is not None and known.phase == "ended":
            reason = "used once"
        elif known is not None and known.phase == "running" and known.scan != scan:
            reason = "give the new scan another"
        elif known is None or (known.phase == "announced" and (known.scan, known.phase) != (scan, phase)):
            self.keep(scan, phase, 20 if len(shape) == 2 else 7, 5.0 if start else 0.0)
        answer = self.ask(m.ScanStarted(scan=scan, at=5.0) if start else m.ScanAnnounced(scan=scan, in_seconds=3.0), crash)
        self.compare(answer, reason)

    @rule(name=SCANS, points=st.sampled_from([-1, 0, 3, 7, 20, 21]), crash=st.booleans())
    def end(self, name: str, points: int, crash: bool) -> None:
        known = self.scans.get(name)
        reason = ""
        if known is None:
            reason = "never started"
        elif known.phase == "ended":
            reason = "" if points in (-1, known.points) else "ended already"
        elif points > known.points:
            reason = "cannot end with"
        else:
            self.keep(known.scan, "ended", known.points if points < 0 else points, known.started, 9.0)
        self.compare(self.ask(m.ScanEnded(scan=ScanId(name), points=points, at=9.0), crash), reason)

    def compare(self, answer: Message, reason: str) -> None:
        if not reason:
            assert answer == Ok()
        else:
            assert isinstance(answer, Refused)
            assert reason in answer.reason

    @rule(back=st.integers(-1, 2), wait=st.sampled_from([0.0, 5.0]), scan=st.sampled_from(["", "a", "c"]), me=st.booleans())
    def watch(self, back: int, wait: float, scan: str, me: bool) -> None:
        self.ids += 1
        request = m.ScansRequest(after=self.version - back, wait=wait, scan=ScanId(scan))
        peer = b"x" if me else b"y"
        self.watching = {key: value for key, value in self.watching.items() if key[0] != peer}  # one question per peer
        self.watching[peer, self.ids] = (request, self.time + wait)
        self.tell([Heard(peer, request, self.ids)])

    @rule()
    def vanish(self) -> None:
        self.watching = {key: value for key, value in self.watching.items() if key[0] != b"x"}
        self.tell([Unreachable(b"x")])

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.tell([])

    @rule()
    def crash(self) -> None:
        self.restart()

    # --- settings and files ------------------------------------------------------------------------------------------

    @rule(content=st.binary(max_size=2), name=st.sampled_from(["x.poni", "y.cfg"]), crash=st.booleans())
    def put_file(self, content: bytes, name: str, crash: bool) -> None:
        digest = digest_of_bytes(content)
        self.files.setdefault(digest, (name, content))
        assert self.ask(m.PutFileRequest(name=name, content=content), crash) == m.Put(digest=digest)

    @rule(
        values=st.dictionaries(st.sampled_from("pqr"), st.integers(0, 2)),
        modality=st.sampled_from(["xrf", "xrd"]),
        neat=st.booleans(),
        crash=st.booleans(),
    )
    def put_settings(self, values: dict[str, int], modality: str, neat: bool, crash: bool) -> None:
        """The order and the spaces of the JSON do not matter."""
        text = canonical(values) if neat else json.dumps(dict(reversed(values.items())), indent=1)
        clean = m.SettingsDocument(modality=modality, values=canonical(values))
        self.documents.setdefault(digest_of(clean), clean)
        document = m.SettingsDocument(modality=modality, values=text)
        assert self.ask(m.PutSettingsRequest(document=document), crash) == m.Put(digest=digest_of(clean))

    @precondition(lambda self: self.files)
    @rule(data=st.data(), known=st.booleans())
    def put_settings_with_a_file(self, data: st.DataObject, known: bool) -> None:
        digest = Digest(data.draw(st.sampled_from(sorted(self.files))) if known else "f" * 64)
        document = m.SettingsDocument(modality="xrd", values="{}", calibration={"poni": digest})
        answer = self.ask(m.PutSettingsRequest(document=document))
        if known:
            self.documents.setdefault(digest_of(document), document)
            assert answer == m.Put(digest=digest_of(document))
        else:
            self.compare(answer, "put the calibration file ffffffffffff… first")

    @invariant()
    def all_is_there(self) -> None:
        assert self.ask(m.ScansRequest(after=0)) == m.Scans(scans=tuple(self.news(m.ScansRequest())), version=self.version)
        for digest, document in self.documents.items():
            assert self.ask(m.GetSettingsRequest(digest=Digest(digest))) == m.SettingsAnswer(document=document)
        for digest, (name, content) in self.files.items():
            assert self.ask(m.GetFileRequest(digest=Digest(digest))) == m.File(name=name, content=content)
        newest_first = [(Digest(key), one) for key, one in reversed(self.documents.items()) if one.modality == "xrf"]
        assert self.ask(m.ListSettingsRequest(modality="xrf")) == m.SettingsList(documents=tuple(newest_first))

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        for request, deadline in self.watching.values():
            assert not self.news(request), "a scan changed, and a watcher sleeps"
            assert self.time < deadline, "a watcher waits longer than he wanted"


TestMetadataStory = MetadataStory.TestCase
TestMetadataStory.settings = settings(max_examples=50, stateful_step_count=50)


def ask(message: Message) -> Message:
    effects = Shelf().batch(MetadataMachine(Shelf()), [Heard(b"me", message, 1)], 0.0)
    return next(effect.message for effect in effects if isinstance(effect, Send))


def test_refusals_are_sentences() -> None:
    refused: list[tuple[Message, str]] = [
        (m.ScanStarted(scan=m.Scan(id=ScanId("../etc"), shape=(3,))), "use letters, digits"),
        (m.ScanStarted(scan=m.Scan(id=ScanId("a"), shape=())), "no points"),
        (m.ScanStarted(scan=m.Scan(id=ScanId("a"), shape=(3, 0))), "no points"),
        (m.ScanAnnounced(scan=m.Scan(id=ScanId("a"), shape=(1 << 20,) * 5000)), "more than 100000000"),
        (m.PutSettingsRequest(document=m.SettingsDocument(modality="m", values="{")), "not JSON"),
        (m.PutSettingsRequest(document=m.SettingsDocument(modality="m", values='{"a":NaN}')), "not JSON"),
        (m.PutSettingsRequest(document=m.SettingsDocument(modality="m", values="[" * 100_000)), "not JSON"),
        (m.PutSettingsRequest(document=m.SettingsDocument(modality="m", values="[1]")), "no mapping"),
        (m.GetSettingsRequest(digest=Digest("0" * 64)), "there is no settings with digest 000000000000…"),
        (m.GetFileRequest(digest=Digest("0" * 64)), "there is no file with digest 000000000000…"),
    ]
    for message, words in refused:
        answer = ask(message)
        assert isinstance(answer, Refused), message
        assert words in answer.reason
        assert len(answer.reason) < 1000, "a sentence, not a book"
    assert isinstance(ask(ListRequest()), Unsupported)
