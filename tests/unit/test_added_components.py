"""Components of other distributions: their place among ours, and every mistake in their files."""

import pathlib
from collections.abc import Iterator

import pytest

from beamline_side.hosts import process
from beamtide import registry
from beamtide.cli import main
from beamtide.component.heartbeat import card_of
from beamtide.component.service import links_of
from beamtide.config import site
from beamtide.errors import BadInput
from tests.plugins import installed

SITE = """site: p06
roots: {raw: raw, processed: processed}
state: state
pipelines: [survey.yaml]
scaling: {caps: {jobs: 4, node_hours_per_day: 100}}
"""
SURVEY = """pipeline: survey
modality: counters
source: {match: "x.h5", options: {signal: /signal}}
settings: {counters: {signal: {field: signal, units: counts, dark: 0}}}
"""
ECHO = """component: echo
kind: echo
links:
  upstream: sink
settings:
  loud: 3
"""
KIND = '''
from dataclasses import dataclass

from pydantic import Field

from beamtide.component.service import Service, settings_of
from beamtide.config.section import Section
from beamtide.errors import BadInput


class EchoSettings(Section):
    loud: int = Field(ge=1)
    """How loud it is."""


@dataclass
class EchoMachine:
    settings: EchoSettings

    def handle(self, event, now):
        return []

    def progress(self):
        return {}

    def why(self):
        return ""

    def check(self):
        pass


def build(deployment, name, store):
    return EchoMachine(settings_of(deployment, name, EchoSettings))


def fits(deployment, name):
    if settings_of(deployment, name, EchoSettings).loud == 10:
        {}["gain"]
    if settings_of(deployment, name, EchoSettings).loud > 10:
        raise BadInput("loud: the neighbours complain; at most 10")


SERVICE = Service(build, ("upstream",), durable=False, settings=EchoSettings, check=fits)
'''


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A site, where the kind of a stranger is installed."""
    points = "[beamtide.components]\necho = strange_echo:SERVICE\n"
    monkeypatch.syspath_prepend(str(installed(tmp_path / "packages", "strange-echo", points, {"strange_echo.py": KIND})))
    monkeypatch.delitem(__import__("sys").modules, "strange_echo", raising=False)
    registry.find.cache_clear()
    (tmp_path / "raw").mkdir()
    (tmp_path / "site.yaml").write_text(SITE + "components: [echo.yaml]\n")
    (tmp_path / "survey.yaml").write_text(SURVEY)
    (tmp_path / "echo.yaml").write_text(ECHO)
    yield tmp_path
    registry.find.cache_clear()


def test_it_stands_behind_ours_whose_ports_stay_where_they_are(folder: pathlib.Path) -> None:
    deployment = site.load(folder / "site.yaml")
    (folder / "plain.yaml").write_text(SITE)
    plain = site.load(folder / "plain.yaml")
    assert deployment.components() == (*plain.components(), "echo")
    assert site.check(folder / "site.yaml") == []
    card = card_of(deployment, "echo", ("sink",))
    assert (card.kind, card.address) == ("echo", f"ipc://{deployment.sockets()}/echo")
    assert '"loud":3' in card.configuration
    assert links_of(deployment, "echo", registry.find("components", "echo")) == {"upstream": "sink"}
    changed = site.derived(deployment, site.Changes(jobs=2))
    assert changed.added == deployment.added


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("kind: echo", "kind: ecko", "echo.yaml:2  kind: 'ecko' is not among the components; known: echo"),
        ("component: echo", "component: sink", "echo.yaml:1  component: sink is the name of a component of ours"),
        ("component: echo", "component: all", "echo.yaml:1  component: all is the name of a component of ours"),
        ("component: echo", "component: buffer.echo", "echo.yaml:1  component: String should match"),
        (
            "upstream: sink",
            "upstream: snik",
            "echo.yaml:4  links.upstream: there is no component 'snik'; this site has",
        ),
        ("upstream: sink", "upstream: echo", "echo.yaml:4  links.upstream: echo cannot connect to itself"),
        (
            "upstream: sink",
            "downstream: sink",
            "echo.yaml:4  links.downstream: the kind echo has no link 'downstream'",
        ),
        ("  upstream: sink", "  {}", "echo.yaml:3  links: the kind echo needs to know which component is its 'upstream'"),
        ("loud: 3", "loud: 0", "echo.yaml:6  settings.loud: Input should be greater than or equal to 1 (found '0')"),
        ("loud: 3", "lout: 3", "echo.yaml:6  settings.lout is not a known key; did you mean loud?"),
        ("loud: 3", "loud: 11", "echo.yaml:5  settings: loud: the neighbours complain; at most 10"),
        ("loud: 3", "loud: 10", "echo.yaml:5  settings: 'echo' (strange_echo:SERVICE, of the distribution strange-echo 1.0) of"),
        ("settings:", "setings:", "echo.yaml:5  setings is not a known key; did you mean settings?"),
    ],
)
def test_every_mistake_has_its_line(folder: pathlib.Path, before: str, after: str, said: str) -> None:
    (folder / "echo.yaml").write_text(ECHO.replace(before, after))
    problems = site.check(folder / "site.yaml")
    assert any(problem.startswith(said) for problem in problems), problems


def test_two_of_one_name_and_a_file_that_is_not_there(folder: pathlib.Path) -> None:
    (folder / "again.yaml").write_text(ECHO)
    (folder / "site.yaml").write_text(SITE + "components: [echo.yaml, again.yaml, nowhere.yaml]\n")
    problems = site.check(folder / "site.yaml")
    assert "again.yaml:1  component: echo stands in two component files; rename one" in problems
    assert any("nowhere.yaml: No such file" in problem for problem in problems)


def test_it_needs_a_port(folder: pathlib.Path) -> None:
    (folder / "site.yaml").write_text(SITE + "components: [echo.yaml]\nnetwork: {bind: 127.0.0.1, ports: 28700-28709}\n")
    assert site.check(folder / "site.yaml") == ["site.yaml:7  network.ports: 11 ports are needed, below 65536"]


def test_a_node_that_has_not_got_the_kind_can_read_the_site_all_the_same(folder: pathlib.Path) -> None:
    (folder / "echo.yaml").write_text(ECHO.replace("kind: echo", "kind: elsewhere"))
    (folder / "survey.yaml").write_text(SURVEY + "write: [hdf5, elsewhere]\n")
    assert site.load(folder / "site.yaml").added["echo"].kind == "elsewhere"
    problems = site.check(folder / "site.yaml")
    assert "echo.yaml:2  kind: 'elsewhere' is not among the components; known: echo" in problems
    assert "survey.yaml:5  write.1: 'elsewhere' is not among the writers; known: cxi, hdf5, jpeg, ptypy, tiff" in problems


def test_nothing_starts_with_a_kind_that_is_not_there(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "echo.yaml").write_text(ECHO.replace("loud: 3", "loud: none"))
    for words in (["serve", "all"], ["serve", "echo"], ["run", "scan_1", "--shape", "3"]):
        assert main.run([*words, "-c", str(folder / "site.yaml")]) == 2
        assert "echo.yaml:6  settings.loud: Input should be a valid integer" in capsys.readouterr().err
    assert not (folder / "state").exists()


def test_a_writer_that_is_not_there_is_told_before_the_writer_begins(folder: pathlib.Path) -> None:
    (folder / "survey.yaml").write_text(SURVEY + "write: [zarr]\n")
    with pytest.raises(BadInput, match="'zarr' is not among the writers; known: cxi, hdf5, jpeg, ptypy, tiff"):
        process.serve(site.load(folder / "site.yaml"), "writer")


def test_kinds_and_writers_are_listed_and_the_settings_of_a_kind_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["formats"]) == 0
    assert "writers     cxi, hdf5, jpeg, ptypy, tiff" in capsys.readouterr().out


def test_the_settings_of_a_kind_are_shown(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["schema", "echo"]) == 0
    assert "How loud it is." in capsys.readouterr().out
    assert main.run(["formats"]) == 0
    assert "components  echo" in capsys.readouterr().out


def test_the_source_of_a_pipeline_that_others_submit_to_has_no_files(folder: pathlib.Path) -> None:
    (folder / "survey.yaml").write_text(SURVEY.replace("source: {", "source: {kind: submitted, "))
    assert any("means nothing for others" in problem for problem in site.check(folder / "site.yaml"))
