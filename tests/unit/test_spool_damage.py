"""Damage is loud: cut and flipped databases and logs stop the start, say where, and are salvaged. Never silently fewer rows."""

import json
import pathlib
import random
import shutil

import pytest

from beamline_side.spool import repair, segments
from beamline_side.spool.sqlite_spool import HEAVY, Spool
from beamtide.cli import main
from beamtide.errors import Broken

ROWS = {f"scan_00001/xrf/{number:06d}": bytes([number % 251]) * (100 + 37 * (number % 90)) for number in range(160)}
LATE = {f"scan_00002/xrf/{number:06d}": bytes([number % 241]) * 700 for number in range(40)}
PAYLOADS = {f"scan_00001/xrf/{number}": bytes([number + 1]) * HEAVY for number in range(3)}
DAMAGED = [("killed", "a.sqlite"), ("killed", "a.sqlite-wal"), ("closed", "a.sqlite")]
"""A spool that was closed has no log."""
Folder = pathlib.Path


def fill(folder: Folder) -> Spool:
    """Return a spool with rows in its database, and later ones in its log."""
    spool = Spool(folder / "a.sqlite", reserve=1 << 20)
    for key, body in ROWS.items():
        spool.keep("tasks", key, body)
    for key, body in PAYLOADS.items():
        spool.keep("payload", key, body)
    spool.commit()
    spool.close()
    spool = Spool(folder / "a.sqlite", reserve=1 << 20)
    for key, body in LATE.items():
        spool.keep("tasks", key, body)
        spool.commit()
    return spool


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """What a SIGKILL leaves: files as they are while somebody has them open."""
    folder = tmp_path_factory.mktemp("killed")
    spool = fill(folder / "alive")
    shutil.copytree(folder / "alive", folder / "dead")
    spool.close()
    return folder / "dead"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = tmp_path_factory.mktemp("closed") / "spool"
    fill(folder).close()
    return folder


def contents(folder: Folder) -> tuple[dict[str, bytes], dict[str, bytes]]:
    spool = Spool(folder / "a.sqlite", reserve=1 << 20)
    try:
        return dict(spool.rows("tasks")), dict(spool.rows("payload"))
    finally:
        spool.close()


def survives(original: Folder, folder: Folder, name: str, content: bytes) -> str:
    """Open a copy with one file replaced; return what was said, or "" if nothing is missing."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    (folder / name).write_bytes(content)
    try:
        assert contents(folder) == (ROWS | LATE, PAYLOADS), f"silently other rows: {name}"
    except Broken as error:
        return str(error)
    return ""


def test_without_damage_everything_is_there(killed: Folder, closed: Folder, tmp_path: Folder) -> None:
    assert (killed / "a.sqlite-wal").stat().st_size > 40 * 16384
    assert not (closed / "a.sqlite-wal").exists()
    for number, original in enumerate((killed, closed)):
        shutil.copytree(original, tmp_path / str(number))
        assert contents(tmp_path / str(number)) == (ROWS | LATE, PAYLOADS)


@pytest.mark.parametrize("times", [30, pytest.param(600, marks=pytest.mark.long)])
@pytest.mark.parametrize(("state", "name"), DAMAGED)
def test_flipped_bits_are_noticed_or_harmless(
    state: str, name: str, times: int, tmp_path: Folder, request: pytest.FixtureRequest
) -> None:
    original: Folder = request.getfixturevalue(state)
    content, chance, loud = (original / name).read_bytes(), random.Random(f"{state} {name}"), 0
    places = [*range(0, 100, 9), *(chance.randrange(len(content)) for _ in range(times))]
    for at in places:
        flipped = bytearray(content)
        flipped[at] ^= 1 << chance.randrange(8)
        said = survives(original, tmp_path / "copy", name, flipped)
        assert not said or "a.sqlite" in said
        loud += bool(said)
    assert loud > len(places) // 4, "hardly any damage was noticed"


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize(("state", "name"), DAMAGED)
def test_cut_files_are_noticed(state: str, name: str, times: int, tmp_path: Folder, request: pytest.FixtureRequest) -> None:
    original: Folder = request.getfixturevalue(state)
    content, chance = (original / name).read_bytes(), random.Random(f"{state} {name}")
    for size in (0, 1, 20, 32, 100, 16384, 16384 + 24 + 32, *(chance.randrange(len(content)) for _ in range(times))):
        said = survives(original, tmp_path / "copy", name, content[:size])
        assert "a.sqlite" in said or (name == "a.sqlite" and not said), f"cut at {size}: nothing was said"


def test_a_cut_log_says_where_and_stays_for_salvage(killed: Folder, tmp_path: Folder) -> None:
    shutil.copytree(killed, tmp_path / "spool")
    log = tmp_path / "spool" / "a.sqlite-wal"
    content = log.read_bytes()[: 32 + 30 * (16384 + 24) + 7000]
    log.write_bytes(content)
    for _ in range(2):
        with pytest.raises(
            Broken, match=rf"a\.sqlite-wal is damaged or cut at byte {32 + 30 * 16408}: 30 of \d+ committed pages"
        ):
            contents(tmp_path / "spool")
    assert log.read_bytes() == content


def test_a_power_cut_that_tears_the_last_commit_raises_no_alarm(killed: Folder, tmp_path: Folder) -> None:
    """The mark is older then: nothing of what it promises is missing, and the torn commit was never acknowledged."""
    folder = tmp_path / "spool"
    shutil.copytree(killed, folder)
    spool = Spool(folder / "a.sqlite", reserve=1 << 20)
    spool.keep("tasks", "before", b"")
    spool.commit()
    mark = (folder / "a.mark").read_bytes()
    spool.keep("tasks", "torn", bytes(5000))
    spool.commit()
    shutil.copytree(folder, tmp_path / "dead")
    spool.close()
    (tmp_path / "dead" / "a.mark").write_bytes(mark)
    log = tmp_path / "dead" / "a.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-9000])
    rows, _ = contents(tmp_path / "dead")
    assert rows == ROWS | LATE | {"before": b""}


def test_a_database_that_is_gone_is_missed(closed: Folder, tmp_path: Folder) -> None:
    shutil.copytree(closed, tmp_path / "spool")
    (tmp_path / "spool" / "a.sqlite").unlink()
    with pytest.raises(Broken, match=r"a\.sqlite is missing or empty"):
        contents(tmp_path / "spool")


def damaged(killed: Folder, folder: Folder) -> Folder:
    """Destroy a page of rows and a payload."""
    shutil.copytree(killed, folder)
    path = folder / "a.sqlite"
    content = bytearray(path.read_bytes())
    page = content.index(b"scan_00001/xrf/000080") // 16384 * 16384
    content[page : page + 40] = b"\xff" * 40
    path.write_bytes(content)
    (segment,) = segments.folder_of(path).iterdir()
    block = bytearray(segment.read_bytes())
    block[HEAVY + 5] ^= 1
    segment.write_bytes(block)
    return path


def test_a_name_that_is_no_text_any_more_is_damage(closed: Folder, tmp_path: Folder) -> None:
    content = bytearray((closed / "a.sqlite").read_bytes())
    at = content.index(b"scan_00001/xrf/000031")
    content[at] |= 0x80
    assert "no text" in survives(closed, tmp_path / "copy", "a.sqlite", content)
    assert repair.check(tmp_path / "copy" / "a.sqlite", lambda _: None)
    done = repair.salvage(tmp_path / "copy" / "a.sqlite", tmp_path / "new" / "a.sqlite", lambda _: None)
    assert (done.rows, done.lost) == (len(ROWS | LATE) + len(PAYLOADS) - 1, [repair.TORN] * 2)


def test_what_is_good_is_salvaged(killed: Folder, tmp_path: Folder) -> None:
    path, told = damaged(killed, tmp_path / "spool"), []
    before = {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    with pytest.raises(Broken, match=r"a\.sqlite.*spool check"):
        Spool(path)
    assert repair.check(path, told.append)
    done = repair.salvage(path, tmp_path / "new" / "a.sqlite", told.append)
    after = {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    assert after == before, "salvage changed what it looked at"
    assert repair.check(tmp_path / "new" / "a.sqlite", told.append) == []
    rows, payloads = contents(tmp_path / "new")
    assert rows.items() <= (ROWS | LATE).items()
    assert len(ROWS | LATE) // 2 < len(rows) < len(ROWS | LATE)
    assert LATE.items() <= rows.items(), "rows behind the damaged page were left"
    assert payloads == {key: body for key, body in PAYLOADS.items() if key != "scan_00001/xrf/1"}
    assert (done.rows, done.payloads) == (len(rows) + len(payloads), len(payloads))
    assert repair.TORN in done.lost
    assert any("scan_00001/xrf/1" in one for one in done.lost)


def test_commands_for_staff_at_night(killed: Folder, tmp_path: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good"
    shutil.copytree(killed, good)
    assert main.run(["spool", "show", str(good / "a.sqlite")]) == 0
    assert "payload" in capsys.readouterr().out
    assert main.run(["spool", "show", str(good / "a.sqlite"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {one["name"]: one["rows"] for one in shown["tables"]} == {"tasks": len(ROWS | LATE), "payload": len(PAYLOADS)}
    assert main.run(["spool", "check", str(good / "a.sqlite")]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    path = damaged(killed, tmp_path / "spool")
    assert main.run(["spool", "check", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]
    assert main.run(["spool", "salvage", str(path)]) == 1
    said = capsys.readouterr().out
    assert "rows, 2 of them with payloads" in said
    assert "To use it, move" in said
    assert main.run(["spool", "check", str(tmp_path / "spool" / "salvaged" / "a.sqlite")]) == 0
    assert main.run(["spool", "salvage", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main.run(["spool", "check", str(tmp_path / "spool" / "b.sqlite")]) == 2
    assert "there is: a" in capsys.readouterr().err
    spool = Spool(good / "a.sqlite", reserve=1 << 20)
    assert main.run(["spool", "show", str(good / "a.sqlite")]) == 2
    assert "in use" in capsys.readouterr().err
    spool.close()
