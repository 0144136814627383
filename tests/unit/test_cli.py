"""The command line as people meet it: exit codes, one sentence, one JSON object."""

import dataclasses
import io
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import rich.console
import typer

from beamtide.cli import main, scans, screen
from beamtide.client.snapshot import PipelineRow, Snapshot
from beamtide.errors import BadInput, BeamtideError, Broken, NoAnswer
from beamtide.task_files import read_tasks

STATES = {"not_asked": 0, "queued": 2, "running": 1, "retrying": 0, "done": 3, "empty": 0, "abandoned": 0}
ROW = PipelineRow(**STATES, total=6, workers=1, rate=2.0, oldest=1.5, to_go=200.0, retried=0)
TASK = {
    "scan": "s1",
    "pipeline": "xrf",
    "modality": "xrf",
    "start": 0,
    "stop": 4,
    "settings": "ab" * 32,
    "inputs": [{"root": "raw", "path": "x.h5", "format": "hdf5", "first": 0, "last": 4}],
}


def test_help_is_whole_and_light() -> None:
    script = "import sys, beamtide.cli.main as c; c.run(['--help']); print(sorted({'numpy', 'zmq', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert all(name in done.stdout for name in ("demo", "run", "serve", "check", "watch", "get", "submit", "settings"))


def test_a_job_loads_only_what_its_first_worker_needs() -> None:
    light = "{'structlog', 'rich', 'asyncio', 'scipy', 'PyMca5', 'pyFAI', 'matplotlib'}"
    script = (
        "import sys, beamtide.cli.main as c; c.build(); import cluster_side.worker.job.job; "
        f"print(sorted({light} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_log_line_of_a_job_is_one_of_structlogs(capsys: pytest.CaptureFixture[str]) -> None:
    logs = "structlog.get_logger().warning('ready', slots=2)"
    script = f"import structlog; from beamtide.cli import screen; screen.log_lines(as_json=True); {logs}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    screen.log_line("warning", "ready", {"slots": 2}, as_json=True)
    theirs, ours = json.loads(done.stdout), json.loads(capsys.readouterr().out)
    assert (
        theirs | {"timestamp": ""}
        == ours | {"timestamp": ""}
        == {"event": "ready", "level": "warning", "slots": 2, "timestamp": ""}
    )
    screen.log_line("warning", "ready", {"slots": 2, "imports_s": 0.4}, as_json=False)
    assert capsys.readouterr().out.endswith(" [warning] ready slots=2 imports_s=0.4\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("beamtide ")


def test_a_missing_site_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert main.run(["topology", "-c", str(tmp_path / "no.yaml")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip().count("\n") == 0
    assert "no.yaml" in said.err


def test_check_speaks_json(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert main.run(["check", str(tmp_path / "no.yaml"), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(BadInput("x"), 2), (NoAnswer("x"), 1), (Broken("x"), 75), (KeyboardInterrupt(), 130), (KeyError("x"), 75)],
)
def test_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    def only_fail(app: typer.Typer) -> None:
        app.command("fail")(fail)

    monkeypatch.setattr(main.status, "add_to", only_fail)
    assert main.run(["fail"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert ("continues from there" in said) == isinstance(error, KeyboardInterrupt)
    if isinstance(error, BeamtideError):
        assert main.run(["--debug", "fail"]) == code
        assert "Traceback" in capsys.readouterr().err


def test_schema_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("site", "pipeline", "encoders"):
        assert main.run(["schema", what]) == 0
        assert json.loads(capsys.readouterr().out)["type"] == "object"


@pytest.mark.parametrize(("text", "shape"), [("11x101", (11, 101)), ("7", (7,))])
def test_shapes(text: str, shape: tuple[int, ...]) -> None:
    assert scans.parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "0x3", "3x", "3x3x3", "-1", "a"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="--shape"):
        scans.parse_shape(text)


def test_tasks_from_json(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([TASK]))
    (task,) = read_tasks(file)
    assert task.id == "s1/xrf/abababab/000000-000004"
    assert task.inputs[0].last == 4


@pytest.mark.parametrize("change", [{"start": "a"}, {"extra": 1}, {"inputs": [{}]}, {"stop": None}, {"settings": 3}])
def test_tasks_that_are_none(tmp_path: pathlib.Path, change: dict[str, object]) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([TASK, TASK | change]))
    with pytest.raises(BadInput, match="task 1: "):
        read_tasks(file)


def test_a_snapshot_in_words() -> None:
    lines = screen.lines_of(Snapshot("s1", {"xrf": ROW}, "xrf: 1 job", {"fence": "waits for encoders"}))
    assert lines[0].split() == ["pipeline", "queued", "running", "done", "workers", "rate", "oldest", "to", "go"]
    assert lines[1].split() == ["xrf", "2", "1", "3/6", "1", "2", "pt/s", "1.5", "s", "3", "min"]
    assert lines[2:] == ["autoscaler  xrf: 1 job", "fence: waits for encoders"]


def test_abandoned_tasks_are_shown_with_their_reasons() -> None:
    row = dataclasses.replace(
        ROW, queued=0, abandoned=2, reasons=("a", "b", "c", "indexes 0 to 7: the file x_00001.nxs never came")
    )
    lines = screen.lines_of(Snapshot("s1", {"xrf": row}, "", {}))
    assert lines[2] == "xrf: 2 of 6 tasks abandoned"
    assert [line.strip() for line in lines[3:]] == list(row.reasons[-3:])
    assert lines[0].split()[1:5] == ["queued", "running", "done", "abandoned"], "a state with tasks has a column"


def test_plain_progress_speaks_when_there_is_news_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(screen.clock, "monotonic", lambda: now)
    seen: list[int] = []
    with screen.progress(quiet=False) as show:
        for done, moment in ((0, 100), (0, 103), (1, 103.5), (2, 104), (2, 105), (5, 105.6), (6, 105.7), (6, 110)):
            now = moment
            show(Snapshot("s1", {"xrf": dataclasses.replace(ROW, done=done)}, "xrf: 1 job", {}))
            seen.append(capsys.readouterr().out.count("xrf: "))
    assert seen == [2, 0, 1, 0, 0, 1, 1, 0], "at most a line in two seconds, but the end is said at once"


def test_a_drawn_snapshot_says_the_same() -> None:
    console = rich.console.Console(width=120, record=True, file=io.StringIO())
    console.print(screen._drawn(Snapshot("s1", {"xrf": ROW}, "xrf: 1 job; encoders: 2 jobs", {"fence": "waits"})))
    text = console.export_text()
    assert all(
        word in text
        for word in ("pipeline", "queued", "running", "done", "3/6", "2 pt/s", "autoscaler", "encoders: 2 jobs", "fence: waits")
    )


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (11.2, "11 s"), (180, "3 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert screen.duration(seconds) == text


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, child in (inner or {}).items():
        yield from leaves(child, f"{name} {word}".strip())


def test_every_command_speaks_json() -> None:
    found = dict(leaves(typer.main.get_command(main.build())))
    assert {"demo", "serve", "work", "rerun", "autoscale", "scan start", "dlq list"} <= found.keys()
    assert not [name for name, command in found.items() if not any("--json" in one.opts for one in command.params)]
