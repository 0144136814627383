"""A disk that is full or fails: new work is refused, what was begun ends from the reserve, nothing that was said is lost."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from beamline_side.spool import segments
from beamline_side.spool.sqlite_spool import HEAVY, Spool
from beamtide.errors import Broken
from tests.small_disk import small_disk

ROOT, MIB = pathlib.Path(__file__).parents[2], 1 << 20
BODY = bytes(2000)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    with small_disk(tmp_path / "disk", mib=12) as folder:
        yield folder


def fill(disk: pathlib.Path) -> pathlib.Path:
    """Take the last byte of a disk."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


def opened(disk: pathlib.Path) -> Spool:
    return Spool(disk / "spool" / "a.sqlite", reserve=2 * MIB)


def begun(disk: pathlib.Path) -> Spool:
    """Return a spool with a hundred open tasks and some payloads."""
    spool = opened(disk)
    for number in range(100):
        spool.keep("tasks", str(number), BODY)
    for number in range(4):
        spool.keep("payload", str(number), bytes([number]) * HEAVY)
    spool.commit()
    return spool


def test_new_work_is_refused_before_anything_fails_and_taken_again_by_itself(disk: pathlib.Path) -> None:
    spool, ballast = begun(disk), disk / "ballast"
    assert spool.room(MIB) == ""
    ballast.write_bytes(bytes(8 * MIB))
    assert "MiB free" in spool.room(0)
    assert "make room" in spool.room(0)
    os.truncate(ballast, 4 * MIB)
    assert spool.room(MIB) == ""
    assert "is full" in spool.room(6 * MIB), "one result that does not fit"
    spool.close()


def test_what_was_begun_ends_on_a_disk_without_a_byte_left(disk: pathlib.Path) -> None:
    """Acknowledgements, verdicts and dead letters: rows that change, rows that go, and some new ones."""
    spool, ballast = begun(disk), fill(disk)
    assert "is full" in spool.room(0)
    for number in range(100):
        spool.keep("tasks", str(number), BODY + b"leased")
        spool.commit()
        spool.forget("tasks", str(number))
        spool.keep("closed", str(number), b"result")
        if number % 10 == 0:
            spool.keep("letters", str(number), BODY)
        spool.commit()
    spool.forget("payload", "0")
    spool.commit()
    assert "is full" in spool.room(0)
    ballast.unlink()
    assert spool.room(MIB) == "", "it did not recover"
    assert (disk / "spool" / "a.reserve").stat().st_size == 2 * MIB
    spool.keep("payload", "new", bytes(HEAVY))
    spool.commit()
    spool.close()
    spool = opened(disk)
    assert {key for key, _ in spool.rows("closed")} == {str(number) for number in range(100)}
    assert [key for key, _ in spool.rows("tasks")] == []
    spool.close()


def test_a_payload_that_is_under_way_when_the_disk_fills_finds_the_reserve(disk: pathlib.Path) -> None:
    spool, _ = begun(disk), fill(disk)
    spool.keep("payload", "late", bytes(HEAVY))
    spool.commit()
    assert spool.read("payload", "late") == bytes(HEAVY)
    spool.close()


def test_when_even_the_reserve_is_used_up_it_ends_loudly_and_keeps_its_word(disk: pathlib.Path) -> None:
    spool, ballast = begun(disk), fill(disk)
    said: list[int] = []
    with pytest.raises(Broken, match="Make room on its disk; everything acknowledged is on it"):
        _keep_for_ever(spool, said)
    assert len(said) > 10
    spool.close()
    ballast.unlink()
    spool = opened(disk)
    assert len(list(spool.rows("letters"))) == len(said)
    assert len(list(spool.rows("tasks"))) == 100
    spool.close()


def _keep_for_ever(spool: Spool, said: list[int]) -> None:
    while True:
        spool.keep("letters", str(len(said)), os.urandom(HEAVY - 1))
        spool.commit()
        said.append(1)


@pytest.mark.parametrize("killed", [False, True])
def test_a_start_on_a_full_disk_is_possible_and_lets_old_work_end(disk: pathlib.Path, killed: bool) -> None:
    spool = begun(disk)
    if killed:
        subprocess.run(["cp", "-a", disk / "spool", disk / "copy"], check=True)
        spool.close()
        subprocess.run(["rm", "-rf", disk / "spool"], check=True)
        (disk / "copy").rename(disk / "spool")
    else:
        spool.close()
    ballast = fill(disk)
    spool = opened(disk)
    assert "is full" in spool.room(0)
    spool.forget("tasks", "1")
    spool.commit()
    assert len(list(spool.rows("tasks"))) == 99
    ballast.unlink()
    assert spool.room(0) == ""
    spool.close()


def test_a_first_start_on_a_full_disk_says_so_and_leaves_nothing_half_made(disk: pathlib.Path) -> None:
    ballast = fill(disk)
    with pytest.raises(Broken, match="Make room on its disk"):
        opened(disk)
    ballast.unlink()
    begun(disk).close()


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.long)])
def test_whatever_call_of_the_disk_fails_nothing_that_was_said_is_lost(tmp_path: pathlib.Path, every: int) -> None:
    source = pathlib.Path(__file__).with_name("faulty_disk.c")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "faulty.so", source, "-ldl"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a failing disk needs a C compiler: {error}")
    command = [sys.executable, "-m", "tests.unit.faulty_story", str(tmp_path / "stories"), str(every)]
    environment = os.environ | {"LD_PRELOAD": str(tmp_path / "faulty.so")}
    story = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert story.returncode == 0, story.stderr[-3000:]
    ends = json.loads(story.stdout)
    assert ends["EIO"]["ends"] > 8 * ends["EIO"].get("goes on", 0), "a disk that fails was overlooked"
    assert ends["ENOSPC"]["goes on"] > 0
    assert ends["ENOSPC"]["ends"] > 0, "a failed sync was taken for a full disk"


def test_segments_of_a_refused_payload_leave_no_trace(disk: pathlib.Path) -> None:
    spool, ballast = begun(disk), fill(disk)
    with pytest.raises(Broken):
        spool.keep("payload", "far too large", bytes(8 * MIB))
    spool.close()
    ballast.unlink()
    spool = opened(disk)
    assert [key for key, _ in spool.rows("payload")] == ["0", "1", "2", "3"]
    for number in range(4):
        spool.forget("payload", str(number))
    spool.commit()
    spool.close()
    opened(disk).close()
    assert not list(segments.folder_of(disk / "spool" / "a.sqlite").iterdir())


def test_a_write_without_room_spends_the_reserve_before_it_gives_up(tmp_path: pathlib.Path) -> None:
    """As on a full disk, and without being root: the database may not grow."""
    spool = Spool(tmp_path / "a.sqlite", reserve=1 << 16)
    spool._rows.connection.pragma("max_page_count", 10)
    assert (tmp_path / "a.reserve").stat().st_size == 1 << 16
    with pytest.raises(Broken, match="Make room on its disk"):
        _keep_for_ever(spool, [])
    assert (tmp_path / "a.reserve").stat().st_size == 0
    spool.close()
