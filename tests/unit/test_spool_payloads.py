"""Payloads lie in segments: written once, shared by name, reclaimed when no row needs them, and never without their row."""

import os
import pathlib
import subprocess
import sys

import pytest

from beamline_side.spool import segments
from beamline_side.spool.sqlite_spool import HEAVY, Spool
from beamtide.errors import Broken
from beamtide.messages.base import Handle

MIB = 1 << 20
RESERVE = 1 << 20


def block(number: int, size: int = HEAVY) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


def files(path: pathlib.Path) -> list[str]:
    folder = segments.folder_of(path)
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def opened(path: pathlib.Path) -> Spool:
    return Spool(path, reserve=RESERVE)


@pytest.fixture
def sorter(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "spool" / "sorter.xrf.sqlite"


@pytest.fixture
def sink(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "spool" / "sink.sqlite"


def test_a_large_body_lies_beside_the_rows_and_a_small_one_in_them(sorter: pathlib.Path) -> None:
    spool = opened(sorter)
    spool.keep("payload", "large", block(1))
    spool.keep("payload", "small", block(2, HEAVY - 4))
    spool.keep("payload", "pieces", (b"head", memoryview(block(3)), b"", b"tail"))
    assert spool.read("payload", "pieces") == b"head" + block(3) + b"tail", "before the commit"
    spool.commit()
    spool.close()
    spool = opened(sorter)
    assert dict(spool.rows("payload")) == {
        "large": block(1),
        "small": block(2, HEAVY - 4),
        "pieces": b"head" + block(3) + b"tail",
    }
    assert spool.handle("payload", "small") is None
    handle = spool.handle("payload", "pieces")
    assert handle is not None
    assert (handle.offset, handle.length) == (HEAVY, HEAVY + 8)
    spool.close()
    assert sorter.stat().st_size < 4 * HEAVY, "the payloads went through SQLite"


def test_what_nobody_needs_any_more_is_reclaimed(sorter: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "FULL_AT", 2 * HEAVY)
    spool = opened(sorter)
    for number in range(6):
        spool.keep("payload", str(number), block(number))
        spool.commit()
    assert len(files(sorter)) == 3
    spool.forget("payload", "0")
    spool.commit()
    assert spool.read("payload", "1") == block(1), "its segment went with its neighbour"
    for number in (1, 4):
        spool.forget("payload", str(number))
    assert len(files(sorter)) == 3, "reclaimed before the commit"
    spool.commit()
    assert len(files(sorter)) == 2
    spool.keep("payload", "5", b"replaced")
    spool.commit()
    spool.keep("payload", "6", block(6))
    spool.commit()
    assert len(files(sorter)) == 2, "the last segment went with its last row, and a new one began"
    assert [spool.read("payload", str(number)) for number in (2, 3, 6)] == [block(2), block(3), block(6)]
    spool.close()


def test_a_batch_that_thinks_again_leaves_nothing(sorter: pathlib.Path) -> None:
    spool = opened(sorter)
    spool.keep("payload", "a", block(1))
    spool.keep("payload", "a", block(2))
    spool.keep("payload", "b", block(3))
    spool.forget("payload", "b")
    spool.commit()
    assert spool.read("payload", "a") == block(2)
    spool.forget("payload", "a")
    spool.commit()
    spool.close()
    opened(sorter).close()
    assert files(sorter) == []


def test_the_sink_takes_what_the_sorter_has_without_a_copy(sorter: pathlib.Path, sink: pathlib.Path) -> None:
    ours, theirs = opened(sorter), opened(sink)
    ours.keep("payload", "task", block(7))
    ours.commit()
    handle = ours.handle("payload", "task")
    assert handle is not None
    assert theirs.borrow(handle) == block(7)
    theirs.keep("payload", "0001", handle)
    theirs.commit()
    (name,) = files(sink)
    assert (segments.folder_of(sink) / name).samefile(segments.folder_of(sorter) / name)
    ours.forget("payload", "task")
    ours.commit()
    ours.close()
    opened(sorter).close()
    assert files(sorter) == []
    theirs.close()
    theirs = opened(sink)
    assert theirs.read("payload", "0001") == block(7), "it went with the sorter's name"
    theirs.forget("payload", "0001")
    theirs.commit()
    assert files(sink) == []
    theirs.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"spool": "../other"},
        {"spool": "sorter.xrd"},
        {"segment": "0123456789abcdef"},
        {"segment": "../../../etc/pw"},
        {"offset": -1},
        {"offset": 1},
        {"length": 1 << 60},
        {"length": 0},
        {"xxh3": 5},
    ],
)
def test_a_handle_that_leads_nowhere_is_not_here(sorter: pathlib.Path, sink: pathlib.Path, wrong: dict[str, object]) -> None:
    ours, theirs = opened(sorter), opened(sink)
    ours.keep("payload", "task", block(7))
    ours.commit()
    handle = ours.handle("payload", "task")
    assert handle is not None
    fields = {name: getattr(handle, name) for name in Handle.__struct_fields__}
    with pytest.raises(KeyError):
        theirs.borrow(Handle(**(fields | wrong)))
    ours.close()
    theirs.close()


STOPPED = """
import os, sys
from beamline_side.spool import rows, segments, sqlite_spool
spool = sqlite_spool.Spool(sys.argv[1], reserve=1 << 20)
where, block = sys.argv[2], bytes(1 << 17)
def stop(*_, **__): os._exit(9)
spool.keep("payload", "old", block)
spool.commit()
if where == "payload written":
    segments.Segments.sync = stop
elif where == "payload synced":
    rows.Rows.write = stop
elif where == "row committed":
    segments.Segments.release = stop
elif where == "segment reclaimed":
    rows.Rows.tidy = stop
spool.keep("payload", "new", block)
spool.forget("payload", "old")
spool.commit()
"""


@pytest.mark.parametrize("where", ["payload written", "payload synced", "row committed", "segment reclaimed"])
def test_a_crash_between_payload_and_row_or_row_and_release_leaves_one_or_the_other(sorter: pathlib.Path, where: str) -> None:
    stopped = subprocess.run([sys.executable, "-c", STOPPED, str(sorter), where], check=False)
    assert stopped.returncode == 9
    spool = opened(sorter)
    committed = where in ("row committed", "segment reclaimed")
    assert [key for key, _ in spool.rows("payload")] == ["new" if committed else "old"]
    spool.forget("payload", "new" if committed else "old")
    spool.commit()
    spool.close()
    assert files(sorter) == [], "garbage is left"


def test_segments_are_synced_before_the_row_that_names_them(sorter: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut cannot be had in a test; the order of the calls can."""
    calls: list[str] = []
    sync, spool = os.fdatasync, opened(sorter)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (calls.append("payload"), sync(descriptor))[1])
    spool._rows.connection.set_commit_hook(lambda: (calls.append("row"), False)[1])
    spool.keep("payload", "a", block(1))
    spool.commit()
    spool.keep("t", "a", b"small")
    spool.commit()
    spool.close()
    assert calls[:3] == ["payload", "row", "row"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_segment_is_never_passed_on(sorter: pathlib.Path, damage: str) -> None:
    spool = opened(sorter)
    spool.keep("payload", "good", block(1))
    spool.keep("payload", "bad", block(2))
    spool.commit()
    spool.close()
    path = segments.folder_of(sorter) / files(sorter)[0]
    content = bytearray(path.read_bytes())
    content[HEAVY + 1000] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[: HEAVY + 1000])
    if damage == "flipped":
        spool = opened(sorter)
        assert spool.read("payload", "good") == block(1)
        with pytest.raises(Broken, match=rf"{path.name}: the payload of {HEAVY} bytes at byte {HEAVY} is damaged.*spool check"):
            spool.read("payload", "bad")
        spool.close()
    else:
        with pytest.raises(Broken, match=rf"{path.name}: the payload of {HEAVY} bytes at byte {HEAVY} is {damage}"):
            opened(sorter)
