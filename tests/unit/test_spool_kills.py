"""A spool is killed at random instants of a story of a thousand tasks; each start is audited."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("kills", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_whatever_was_said_before_a_kill_is_there_after_it(tmp_path: pathlib.Path, kills: int) -> None:
    command = [sys.executable, "-m", "tests.unit.spool_story", str(tmp_path), str(kills), "1"]
    story = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert story.returncode == 0, story.stderr[-3000:]
    assert json.loads(story.stdout)["kills"] >= kills
