"""From files to a deployment, and every mistake in between."""

import pathlib

import pytest

from beamtide.config import site
from beamtide.errors import BadInput

SITE = """
site: p06
roots: {raw: raw, processed: processed}
state: state
pipelines: ["pipelines/*.yaml"]
scaling: {caps: {jobs: 4, node_hours_per_day: 100}}
"""
PIPELINE = "pipeline: NAME\nmodality: encoders\nsource: {kind: files, match: 'x.h5'}\n"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "raw").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "site.yaml").write_text(SITE)
    add(tmp_path, "encoders")
    add(tmp_path, "xrf", "positions: encoders\ninputs: [encoders/x]\n")
    return tmp_path


def add(folder: pathlib.Path, name: str, more: str = "", pipeline: str = "") -> None:
    (folder / "pipelines" / f"{name}.yaml").write_text(PIPELINE.replace("NAME", pipeline or name) + more)


def refusal(folder: pathlib.Path) -> str:
    with pytest.raises(BadInput) as caught:
        site.load(folder / "site.yaml")
    return str(caught.value)


def test_paths_are_relative_to_the_site_file(folder: pathlib.Path) -> None:
    deployment = site.load(folder / "site.yaml")
    assert deployment.site.roots.raw == folder / "raw"
    assert deployment.site.state == folder / "state"
    assert list(deployment.pipelines) == ["encoders", "xrf"]
    assert site.shared_root(deployment) == folder


def test_two_pipelines_of_one_name(folder: pathlib.Path) -> None:
    add(folder, "again", pipeline="xrf")
    assert "stands in two pipeline files" in refusal(folder)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("positions: nowhere\n", "xrf.yaml:4  positions: there is no pipeline nowhere"),
        ("inputs: [nowhere/x]\n", "xrf.yaml:4  inputs: there is no pipeline nowhere"),
        ("inputs: [encoders]\n", "has no dataset"),
        ("inputs: [xrf/area]\n", "cannot wait for itself"),
        ("bufer: {order: fifo}\n", "did you mean buffer?"),
    ],
)
def test_wrong_relations(folder: pathlib.Path, more: str, expected: str) -> None:
    add(folder, "xrf", more)
    assert expected in refusal(folder)


def test_a_circle_of_inputs(folder: pathlib.Path) -> None:
    add(folder, "encoders", "inputs: [xrf/area]\n")
    assert "wait for each other" in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("state: state", "state: raw/state", "lies inside roots.raw"),
        ("state: state", "state: state\nnetwork: {bind: 127.0.0.1, ports: 28700-28702}", "ports are needed"),
        ("state: state", "state: state\nnetwork: {bind: 0.0.0.0}", "can be reached from other machines"),
        ("state: state", "state: state\nnetwork: {bind: 10.1.2.3}", "there are no keys"),
    ],
)
def test_wrong_places(folder: pathlib.Path, old: str, new: str, expected: str) -> None:
    (folder / "site.yaml").write_text(SITE.replace(old, new))
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ("memory: 15", "site.yaml:5  budgets.memory"),
        ("memory: 400, message: 256", "memory must hold two messages of budgets.message: at least 512"),
        ("backlog: 1 GB", "budgets.backlog"),
        ("bytes: 1", "budgets.bytes"),
    ],
)
def test_wrong_budgets(folder: pathlib.Path, budgets: str, expected: str) -> None:
    (folder / "site.yaml").write_text(SITE.replace("state: state", f"state: state\nbudgets: {{{budgets}}}"))
    assert expected in refusal(folder)


def test_check_finds_what_load_does_not(folder: pathlib.Path) -> None:
    (folder / "raw").rmdir()
    add(folder, "xrf", "calibration: {cfg: fit.cfg}\n")
    found = "\n".join(site.check(folder / "site.yaml"))
    assert "roots.raw" in found
    assert "fit.cfg" in found


@pytest.mark.parametrize("size", ["line", "file", "500"])
def test_a_reconstruction_of_parts_of_a_scan_is_refused(folder: pathlib.Path, size: str) -> None:
    pipeline = "pipeline: ptycho\nmodality: ptychography\nsource: {kind: files, match: 'x.h5', frames_per_task: SIZE}\n"
    (folder / "pipelines/ptycho.yaml").write_text(pipeline.replace("SIZE", size))
    assert [problem for problem in site.check(folder / "site.yaml") if "ptycho" in problem] == [
        f"pipeline ptycho: source.frames_per_task: {size} would make many results of parts of a scan, and ptychography needs all "
        "frames of it at once; set frames_per_task: scan"
    ]
    (folder / "pipelines/ptycho.yaml").write_text(pipeline.replace("SIZE", "scan"))
    assert not [problem for problem in site.check(folder / "site.yaml") if "ptycho" in problem]


@pytest.mark.parametrize("what", ["processed", "state"])
def test_check_tells_of_folders_that_cannot_be_written(folder: pathlib.Path, what: str) -> None:
    """Below a file nothing can be made, not even by root."""
    text = (folder / "site.yaml").read_text()
    (folder / "file").touch()
    (folder / "site.yaml").write_text(text.replace(f"{what}: {what}", f"{what}: file/below"))
    problems = [problem for problem in site.check(folder / "site.yaml") if "cannot write" in problem]
    assert len(problems) == 1
    assert f"{what}: you cannot write to {folder}/file/below; check as" in problems[0]


def test_datasets_of_other_pipelines_that_are_not_there_or_in_another_unit(folder: pathlib.Path) -> None:
    add(folder, "encoders", "settings: {axes: {x: {field: a, units: mm}, y: {field: b, units: mm}}}\n")
    pipeline = "pipeline: places\nmodality: positions\nsource: {kind: scan}\n"
    (folder / "pipelines/xrf.yaml").write_text(f"{pipeline}inputs: [encoders/x, encoders/y]\n")
    assert site.check(folder / "site.yaml") == [
        "pipeline places: encoders/x is given in mm, and the settings of positions want um; correct one of the two"
    ]
    (folder / "pipelines/xrf.yaml").write_text(f"{pipeline}inputs: [encoders/x, encoders/z]\n")
    (problem,) = site.check(folder / "site.yaml")
    assert problem.startswith(
        "pipeline places: inputs: encoders/z: encoders makes no dataset 'z' with its settings, only x, x_std"
    )


def test_a_calibration_file_outside_the_shared_folder(folder: pathlib.Path) -> None:
    add(folder, "xrf", "calibration: {cfg: ../fit.cfg}\n")
    assert any("leaves" in problem for problem in site.check(folder / "site.yaml"))


def test_a_derived_site_is_a_site(folder: pathlib.Path) -> None:
    changes = site.Changes(jobs=2, pipelines=("encoders",), processed=folder / "elsewhere")
    derived = site.derived(site.load(folder / "site.yaml"), changes)
    assert derived.site.scaling.caps.jobs == 2
    assert list(derived.pipelines) == ["encoders"]
    assert derived.site.roots.processed == folder / "elsewhere"
    assert site.shared_root(derived) == folder


def test_a_derived_site_knows_its_pipelines(folder: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="no pipeline 'xrd'; known: encoders, xrf"):
        site.derived(site.load(folder / "site.yaml"), site.Changes(pipelines=("xrd",)))


def test_sockets_lie_in_the_state_folder_or_where_their_path_is_short_enough(folder: pathlib.Path) -> None:
    found = []
    for state in ("/s", "/" + "far" * 30, "/" + "FAR" * 30):
        (folder / "site.yaml").write_text(SITE.replace("state: state", f"state: {state}"))
        found.append(site.load(folder / "site.yaml"))
    near, far, other = found
    assert near.sockets() == pathlib.Path("/s/run")
    assert far.sockets() not in (far.site.state / "run", other.sockets())
    assert max(len(far.address(name).removeprefix("ipc://")) for name in far.components()) <= 100
