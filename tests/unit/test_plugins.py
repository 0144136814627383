"""Plug-ins of strangers: found by entry point, and every mistake in one is a sentence that names its distribution."""

import json
import pathlib
from collections.abc import Iterator

import pytest

from beamtide import registry
from beamtide.cli import main
from beamtide.config import site
from beamtide.errors import BadInput
from cluster_side import commands_scaling
from cluster_side.scaling.launchers import launcher_of
from tests.plugins import installed

SITE = """site: p06
roots: {raw: packages, processed: processed}
state: state
pipelines: []
scaling: {caps: {jobs: 4, node_hours_per_day: 100}}
"""
LAUNCHER = '''
from typing import ClassVar

from pydantic import BaseModel, Field

from beamtide.config.section import Section
from cluster_side.scaling.launchers.base import Launcher, settings_of


class Queue(Section):
    """How jobs are asked for."""

    lanes: int = Field(ge=1)
    """Jobs at once."""


class QueueLauncher(Launcher):
    """A queue."""

    settings: ClassVar[type[BaseModel]] = Queue
    first_start = 7.0

    def __init__(self, deployment):
        self.lanes = settings_of(deployment, Queue).lanes
'''


@pytest.fixture
def queue(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A folder for sites, where the launcher of a stranger is installed."""
    points = "[beamtide.launchers]\nqueue = strange_queue:QueueLauncher\n"
    monkeypatch.syspath_prepend(str(installed(tmp_path / "packages", "strange-queue", points, {"strange_queue.py": LAUNCHER})))
    registry.find.cache_clear()
    yield tmp_path
    registry.find.cache_clear()


def problems(folder: pathlib.Path, more: str) -> list[str]:
    """What `beamtide check` says of a site file with some more lines, the first of which is line 6."""
    (folder / "site.yaml").write_text(SITE + more)
    return site.check(folder / "site.yaml")


def test_a_launcher_from_outside_is_chosen_and_told_its_settings(queue: pathlib.Path) -> None:
    assert problems(queue, "launcher: queue\nlaunchers: {queue: {lanes: 3}}\n") == []
    launcher = launcher_of(site.load(queue / "site.yaml"))
    assert (launcher.lanes, launcher.first_start, launcher.jobs_outlive_us) == (3, 7.0, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "beamtime: '1'\nlauncher: htcondor\n",
            "site.yaml:7  launcher: 'htcondor' is not among the launchers; known: local, queue, slurm",
        ),
        ("launcher: queue\n", "site.yaml:6  launchers.queue.lanes is required: Jobs at once."),
        ("launcher: queue\nlaunchers:\n  queue:\n    lanes: 0\n", "site.yaml:9  launchers.queue.lanes: Input should be greater"),
        (
            "launchers:\n  queue:\n    lane: 1\n",
            "site.yaml:8  launchers.queue.lane is not a known key; did you mean lanes?",
        ),
        ("launchers:\n  pbs: {}\n", "site.yaml:7  launchers.pbs: 'pbs' is not among the launchers"),
        ("launchers:\n  slurm: {}\n", "site.yaml:6  launchers: settings of slurm stand in the section slurm"),
        ("slurm:\n  partition: x\n", "site.yaml:7  slurm.partition is not a known key; did you mean partitions?"),
    ],
)
def test_every_mistake_about_a_launcher_has_its_line(queue: pathlib.Path, more: str, said: str) -> None:
    assert any(problem.startswith(said) for problem in problems(queue, more)), problems(queue, more)


def test_what_was_written_before_is_good_still(queue: pathlib.Path) -> None:
    assert problems(queue, "launcher: slurm\nslurm: {partitions: [allcpu], whole_nodes: true}\n") == []
    assert site.load(queue / "site.yaml").site.slurm.partitions == ("allcpu",)


def test_a_launcher_is_refused_before_anything_starts(queue: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems(queue, "launcher: htcondor\n")
    for command in (["serve", "all"], ["autoscale"], ["run", "scan_1", "--shape", "3"]):
        assert main.run([*command, "-c", str(queue / "site.yaml")]) == 2
        assert "'htcondor' is not among the launchers; known: local, queue, slurm" in capsys.readouterr().err
    assert not (queue / "state").exists()


def test_launchers_are_listed_and_their_settings_shown(queue: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["formats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["launchers"] == ["local", "queue", "slurm"]
    assert main.run(["schema", "queue"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["lanes"]["description"] == "Jobs at once."
    assert main.run(["schema", "slurm"]) == 0
    assert "partitions" in json.loads(capsys.readouterr().out)["properties"]
    assert main.run(["schema", "nothing"]) == 2


def test_what_the_autoscaler_starts_is_not_told_whom_the_autoscaler_dies_with(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(commands_scaling.parent_death, "die_with", lambda parent, _: told.append(parent))
    monkeypatch.setenv(commands_scaling.PARENT, "17")
    commands_scaling.live_with_parent()
    commands_scaling.live_with_parent()
    assert told == [17]


@pytest.mark.parametrize(
    ("points", "module", "said"),
    [
        ("[beamtide.formats]\nodd = odd:FORMAT\n", "raise RuntimeError('two\\nlines')", "does not load: RuntimeError: two lines"),
        ("[beamtide.formats]\nodd = odd:FORMAT\n", "raise SystemExit(0)", "does not load: SystemExit: 0"),
        ("[beamtide.formats]\nodd = odd:FORMAT\n", "", "does not load: AttributeError"),
        ("[beamtide.formats]\nodd = nowhere:FORMAT\n", "", "does not load: ModuleNotFoundError"),
        ("[beamtide.formats]\nodd = odd:FORMAT\n", "FORMAT = {}", "is dict without 'probe'; correct it there"),
        ("[beamtide.formats]\nhdf5 = odd:FORMAT\n", "FORMAT = {}", "is given by several of the formats"),
        (
            "[beamtide.launchers]\nodd = odd:Odd\n",
            "class Odd:\n submit = look = cancel = None\n settings = 7",
            "has 'settings' that are not a Pydantic model",
        ),
    ],
)
def test_a_plug_in_that_is_wrong_is_a_sentence_with_its_distribution(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, points: str, module: str, said: str
) -> None:
    monkeypatch.syspath_prepend(str(installed(tmp_path, "odd-ones", points, {"odd.py": module})))
    monkeypatch.delitem(__import__("sys").modules, "odd", raising=False)
    registry.find.cache_clear()
    try:
        with pytest.raises(BadInput) as caught:
            registry.find(points.partition("]")[0].removeprefix("[beamtide."), points.split("\n")[1].split()[0])
    finally:
        registry.find.cache_clear()
    assert said in str(caught.value)
    assert "of the distribution odd-ones 1.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_modality_that_raises_while_it_is_checked_is_one_problem_of_the_site(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = (
        "from cluster_side.modalities.base import Modality, SettingsModel\n"
        "def load(settings, calibration):\n    raise KeyError('gain')\n"
        "MODALITY = Modality('odd', SettingsModel, lambda settings: (), kernel='odd_modality:load')\n"
    )
    points = "[beamtide.modalities]\nodd = odd_modality:MODALITY\n"
    monkeypatch.syspath_prepend(str(installed(tmp_path / "packages", "odd-ones", points, {"odd_modality.py": module})))
    registry.find.cache_clear()
    (tmp_path / "site.yaml").write_text(SITE.replace("[]", "[odd.yaml]").replace("raw: packages", "raw: nowhere"))
    (tmp_path / "odd.yaml").write_text("pipeline: odd\nmodality: odd\nsource: {match: x.h5}\n")
    try:
        nowhere, said = site.check(tmp_path / "site.yaml")
    finally:
        registry.find.cache_clear()
    assert "is not a folder" in nowhere
    whose = "'odd' (odd_modality:MODALITY, of the distribution odd-ones 1.0) of the modalities"
    assert said == f"pipeline odd: {whose} raised KeyError: 'gain'; correct it there"


def test_formats_says_what_does_not_load(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints while it is imported does not get between us and those who read our JSON."""
    points = "[beamtide.formats]\nodd = strange_format:FORMAT\n"
    files = {"strange_format.py": "print('hello')\nraise RuntimeError('no licence')\n"}
    monkeypatch.syspath_prepend(str(installed(tmp_path, "strange-format", points, files)))
    registry.find.cache_clear()
    assert main.run(["formats", "--json"]) == 2
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert "odd" in found["formats"]
    (problem,) = found["problems"]
    assert "distribution strange-format" in problem
    assert problem.endswith("does not load: RuntimeError: no licence")
    assert told.err == "hello\n"


def test_metadata_that_cannot_be_read_harms_nobody_else(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(installed(tmp_path, "strange-broken", "[beamtide.formats]\nno line of this kind\n", {})))
    assert main.run(["formats", "--json"]) == 0
    assert "hdf5" in json.loads(capsys.readouterr().out)["formats"]


def test_of_two_distributions_of_one_name_the_first_counts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python has it, also where the metadata of a third one cannot be read."""
    for place, name in (("behind", "old"), ("before", "new")):
        points = f"[beamtide.formats]\n{name} = strange_format:FORMAT\n"
        monkeypatch.syspath_prepend(str(installed(tmp_path / place, "strange-format", points, {})))
    assert {"new", "old"} & set(registry.names("formats")) == {"new"}
    monkeypatch.syspath_prepend(str(installed(tmp_path / "broken", "strange-broken", "[beamtide.formats]\nno line\n", {})))
    assert {"new", "old"} & set(registry.names("formats")) == {"new"}
