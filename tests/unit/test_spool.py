"""The spool keeps what it committed: over kill -9, on a full disk, and on a disk that flips bits."""

import os
import pathlib
import random
import sqlite3
import stat
import subprocess
import sys

import pytest

from beamline_side.spool.sqlite_spool import Spool
from beamtide.errors import BadInput, Broken

WRITER = """
import sys
from beamline_side.spool.sqlite_spool import Spool
spool, number = Spool(sys.argv[1]), 0
while True:
    for _ in range(3):
        spool.keep("numbers", f"{number:09d}", str(number).encode() * 50)
        number += 1
    spool.forget("numbers", f"{number - 3:09d}")
    spool.commit()
    print(number, flush=True)
"""


def test_rows_come_back_in_order_and_uncommitted_ones_do_not(tmp_path: pathlib.Path) -> None:
    spool = Spool(tmp_path / "spool" / "a.sqlite")
    for key in ("b", "a", "c"):
        spool.keep("t", key, key.encode())
    spool.keep("other", "a", b"else")
    spool.forget("t", "c")
    assert spool.read("t", "a") == b"a", "rows of the open transaction can be read"
    spool.commit()
    spool.commit()
    spool.keep("t", "late", b"never committed")
    spool.close()
    spool = Spool(tmp_path / "spool" / "a.sqlite")
    assert list(spool.rows("t")) == [("a", b"a"), ("b", b"b")]
    with pytest.raises(KeyError):
        spool.read("t", "late")
    spool.close()
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_a_commit_waits_for_the_disk(tmp_path: pathlib.Path) -> None:
    """A power cut cannot be had in a test; that SQLite was told to sync each commit can be read back."""
    spool = Spool(tmp_path / "a.sqlite")
    settings = [spool._rows.connection.pragma(name) for name in ("synchronous", "journal_mode")]
    spool.close()
    assert settings == [2, "wal"]


@pytest.mark.parametrize("seed", range(3))
def test_kill_in_the_middle_of_commits_loses_nothing_acknowledged(tmp_path: pathlib.Path, seed: int) -> None:
    path = tmp_path / "spool" / "a.sqlite"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(random.Random(seed).randrange(5, 60)):
        child.stdout.readline()
    child.kill()
    said = [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    child.wait()
    spool = Spool(path)
    rows = dict(spool.rows("numbers"))
    spool.close()
    end = max(int(key) for key in rows) + 1
    assert end >= max(said, default=0)
    assert end % 3 == 0, "half a commit is visible"
    assert rows == {f"{n:09d}": str(n).encode() * 50 for n in range(end) if n % 3}


def test_a_flipped_bit_is_noticed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spool" / "a.sqlite"
    spool = Spool(path)
    spool.keep("tasks", "scan 7/xrf", b"precious " * 20)
    spool.commit()
    spool.close()
    block = bytearray(path.read_bytes())
    block[block.index(b"precious") + 3] ^= 4
    path.write_bytes(block)
    with pytest.raises(Broken, match=r"a\.sqlite.*'scan 7/xrf'.*'tasks'.*damaged.*spool check"):
        Spool(path)


def test_a_bit_that_flips_while_we_run_is_noticed_when_it_is_read(tmp_path: pathlib.Path) -> None:
    spool = Spool(tmp_path / "a.sqlite")
    spool.keep("tasks", "scan 7/xrf", b"precious")
    spool.commit()
    spool._rows.connection.execute("UPDATE rows SET body = CAST('precioux' AS BLOB)")
    for read in (lambda: spool.read("tasks", "scan 7/xrf"), lambda: list(spool.rows("tasks"))):
        with pytest.raises(Broken, match=r"a\.sqlite.*'scan 7/xrf'.*'tasks'.*damaged"):
            read()
    spool.close()


def test_rows_that_changed_places_are_noticed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spool" / "a.sqlite"
    spool = Spool(path)
    spool.keep("t", "a", b"1")
    spool.commit()
    spool.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE rows SET key='b'")
    connection.commit()
    connection.close()
    with pytest.raises(Broken, match="row 'b'"):
        Spool(path)


def test_a_file_that_is_no_database_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "a.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Broken, match=r"a\.sqlite"):
        Spool(tmp_path / "spool" / "a.sqlite")


def test_full_database_says_make_room() -> None:
    spool = Spool(None)
    spool._rows.connection.pragma("max_page_count", 20)
    with pytest.raises(Broken, match="Make room on its disk"):
        _fill(spool)
    spool.close()


def _fill(spool: Spool) -> None:
    for number in range(100):
        spool.keep("t", str(number), bytes(5000))
        spool.commit()


def test_a_second_process_is_refused(tmp_path: pathlib.Path) -> None:
    spool = Spool(tmp_path / "spool" / "a.sqlite")
    open_it = f"from beamline_side.spool.sqlite_spool import Spool; Spool({str(tmp_path / 'spool' / 'a.sqlite')!r})"
    other = subprocess.run([sys.executable, "-c", open_it], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "in use by another process" in other.stderr
    spool.close()
    assert subprocess.run([sys.executable, "-c", open_it], check=False).returncode == 0


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot open the spool"):
        Spool(tmp_path / "file" / "a.sqlite")


def test_relaxed_does_not_wait_for_the_disk_and_says_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, relaxed = (Spool(tmp_path / name / "a.sqlite", name, reserve=1 << 16) for name in ("full", "relaxed"))
    assert (full.progress(), relaxed.progress()) == ({}, {"relaxed": 1.0})
    assert relaxed._rows.connection.pragma("synchronous") == 1
    monkeypatch.setattr(os, "fdatasync", None)
    relaxed.keep("t", "a", bytes(1 << 17))
    relaxed.commit()
    for spool in (full, relaxed):
        spool.close()
