"""Random stories of two spools on one host against two dictionaries: rows, payloads, handles, commits, crashes, restarts."""

import pathlib
import shutil
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beamline_side.spool import segments
from beamline_side.spool.sqlite_spool import HEAVY, Spool

NAMES = ("sorter", "sink")
TABLES = st.sampled_from(["payload", "tasks"])
KEYS = st.sampled_from(["a", "b", "c", "d"])
BODIES = st.builds(
    lambda byte, size: bytes([byte]) * size, st.integers(0, 255), st.sampled_from([0, 1, 300, HEAVY - 1, HEAVY, HEAVY + 9])
)
WHO = st.sampled_from(NAMES)
Rows = dict[tuple[str, str], bytes]


class SpoolStory(RuleBasedStateMachine):
    """What a spool returns is what a dictionary would; a crash falls back to the last commit, in both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.full_at, segments.FULL_AT = segments.FULL_AT, 2 * HEAVY
        self.spools = {name: self.open(name) for name in NAMES}
        self.now: dict[str, Rows] = {name: {} for name in NAMES}
        self.committed: dict[str, Rows] = {name: {} for name in NAMES}

    def open(self, name: str) -> Spool:
        return Spool(self.folder / f"{name}.sqlite", "relaxed", reserve=1 << 16)

    @rule(who=WHO, table=TABLES, key=KEYS, body=BODIES, pieces=st.booleans())
    def keep(self, who: str, table: str, key: str, body: bytes, pieces: bool) -> None:
        self.spools[who].keep(table, key, (body[:5], memoryview(body)[5:]) if pieces else body)
        self.now[who][table, key] = body

    @rule(who=WHO, table=TABLES, key=KEYS)
    def forget(self, who: str, table: str, key: str) -> None:
        self.spools[who].forget(table, key)
        self.now[who].pop((table, key), None)

    @rule(who=WHO)
    def commit(self, who: str) -> None:
        self.spools[who].commit()
        self.committed[who] = dict(self.now[who])
        for table in ("payload", "tasks"):
            rows = {key: body for (name, key), body in self.now[who].items() if name == table}
            assert dict(self.spools[who].rows(table)) == rows

    @rule(key=KEYS, to=KEYS)
    def hand_on(self, key: str, to: str) -> None:
        """The sink takes what the sorter has committed, as a handle, and commits."""
        handle = self.spools["sorter"].handle("payload", key)
        body = self.committed["sorter"].get(("payload", key))
        if handle is not None and body is not None and body == self.now["sorter"].get(("payload", key)):
            assert self.spools["sink"].borrow(handle) == body
            self.spools["sink"].keep("payload", to, handle)
            self.now["sink"]["payload", to] = body
            self.commit("sink")

    @rule(who=WHO)
    def crash(self, who: str) -> None:
        """What a SIGKILL leaves: the files as they are."""
        copy = self.folder / "copy"
        copy.mkdir()
        for path in self.folder.glob(f"{who}.*"):
            if path.is_file():
                shutil.copy2(path, copy / path.name)
        self.spools[who].close()
        for path in self.folder.glob(f"{who}.*"):
            if path.is_file():
                path.unlink()
        for path in copy.iterdir():
            path.rename(self.folder / path.name)
        copy.rmdir()
        self.spools[who] = self.open(who)
        self.now[who] = dict(self.committed[who])

    @rule(who=WHO)
    def restart(self, who: str) -> None:
        self.spools[who].close()
        self.spools[who] = self.open(who)
        self.now[who] = dict(self.committed[who])

    @invariant()
    def nothing_but_what_was_kept(self) -> None:
        for who, spool in self.spools.items():
            for table in ("payload", "tasks"):
                for key in "abcd":
                    try:
                        body = spool.read(table, key)
                    except KeyError:
                        body = None
                    assert body == self.now[who].get((table, key)), f"{who} {table} {key}"

    def teardown(self) -> None:
        for who in NAMES:
            self.restart(who)
        self.nothing_but_what_was_kept()
        for who, spool in self.spools.items():
            heavy = sum(len(body) >= HEAVY for body in self.committed[who].values())
            folder = segments.folder_of(self.folder / f"{who}.sqlite")
            assert bool(heavy) == (folder.is_dir() and any(folder.iterdir())), "segments are left, or gone"
            spool.close()
        segments.FULL_AT = self.full_at
        shutil.rmtree(self.folder)


TestSpoolStory = SpoolStory.TestCase
TestSpoolStory.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
