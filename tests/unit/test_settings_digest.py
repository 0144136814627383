"""Which settings have another digest when something changes: the pipeline's own, and those that take its datasets."""

import pathlib

import pytest

from beamtide.config import settings, site
from beamtide.config.models import Deployment, PipelineConfig
from beamtide.errors import BadInput

SITE = """
site: s
roots: {raw: raw, processed: processed}
state: state
pipelines: [encoders.yaml, dpc.yaml, phase.yaml, xrf.yaml]
scaling: {caps: {jobs: 1, node_hours_per_day: 24}}
"""
PIPELINES = {
    "encoders": "modality: encoders\nsource: {match: e.h5}\nsettings: {axes: {x: {field: c, offset: %s}}}",
    "dpc": "modality: dpc\nsource: {match: d.h5}",
    "phase": "modality: dpc_phase\nsource: {kind: scan}\ninputs: [dpc/angle_x, encoders/x]\nsettings: {photon_energy: 10}",
    "xrf": "modality: xrf\nsource: {match: x.h5}\npositions: encoders",
}


def deployment(folder: pathlib.Path, offset: float) -> Deployment:
    for name, text in PIPELINES.items():
        body = text % offset if "%s" in text else text
        (folder / f"{name}.yaml").write_text(f"pipeline: {name}\n{body}\n")
    (folder / "site.yaml").write_text(SITE)
    return site.load(folder / "site.yaml")


def test_a_new_axis_map_changes_what_takes_the_positions_and_nothing_else(tmp_path: pathlib.Path) -> None:
    before = site.settings_of(deployment(tmp_path, 0.0))
    after = site.settings_of(deployment(tmp_path, 1.0))
    assert {name for name in before if before[name] != after[name]} == {"encoders", "phase"}
    assert site.settings_of(deployment(tmp_path, 0.0)) == before


def test_what_takes_nothing_has_the_digest_it_always_had(tmp_path: pathlib.Path) -> None:
    made = deployment(tmp_path, 0.0)
    for name in ("encoders", "dpc", "xrf"):
        unstated = {name: settings.UNSTATED}
        alone = settings.document_for(made.pipelines[name], tmp_path, rounds=unstated)
        assert alone.digest == settings.document_for(made.pipelines[name], tmp_path, made.pipelines, unstated).digest
        assert alone.document.upstream == {}
        stated = settings.document_for(made.pipelines[name], tmp_path).document
        assert stated.upstream == {settings.SOURCE: settings.digest_of_bytes(stated.source.encode())}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [({}, "match, the pattern of the files, is required"), ({"kind": "scan", "match": "*.h5"}, "means nothing for others")],
)
def test_a_source_has_files_or_is_the_scan(source: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PipelineConfig.model_validate({"pipeline": "p", "modality": "xbic", "source": source})


def test_a_scan_as_source_needs_inputs(tmp_path: pathlib.Path) -> None:
    deployment(tmp_path, 0.0)
    (tmp_path / "phase.yaml").write_text("pipeline: phase\nmodality: dpc_phase\nsource: {kind: scan}\n")
    with pytest.raises(BadInput, match=r"phase\.yaml:3 .*a scan as source needs inputs"):
        site.load(tmp_path / "site.yaml")
