"""Pipelines and sites, in memory or as the files that people write; plain values stand for all that a test leaves open."""

import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from beamtide.config import site
from beamtide.config.models import Deployment, PipelineConfig, SiteConfig


def make_pipeline(name: str = "xrf", **more: object) -> PipelineConfig:
    """Return a pipeline of the modality of its name; `more` are other keys of a pipeline file."""
    return PipelineConfig.model_validate({"pipeline": name, "modality": name, "source": {"match": "*"}} | more)


def make_site(folder: pathlib.Path, *pipelines: PipelineConfig, jobs: int = 1, **more: object) -> Deployment:
    """Return a site that has its files in `folder` and at most so many jobs; `more` are other keys of a site file."""
    places = {"roots": {"raw": folder, "processed": folder}, "state": folder, "pipelines": ()}
    config = SiteConfig.model_validate({"site": "test", **places, "scaling": scaling_for(jobs)} | more)
    return Deployment(site=config, pipelines={one.pipeline: one for one in pipelines}, file=folder / "site.yaml")


def write_site(folder: pathlib.Path, pipelines: Mapping[str, Mapping[str, Any]], jobs: int = 1, **more: object) -> Deployment:
    """Write a site file, and the file of each pipeline, into `folder`, and load them; keys as those of `make_site`."""
    places = {"roots": {"raw": "raw", "processed": "processed", "shared": "."}, "state": "state"}
    whole = {"site": "test", **places, "pipelines": [f"{name}.yaml" for name in pipelines], "scaling": scaling_for(jobs)} | more
    (folder / "site.yaml").write_text(yaml.safe_dump(whole))
    for name, keys in pipelines.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"pipeline": name, "modality": name} | dict(keys)))
    return site.load(folder / "site.yaml")


def scaling_for(jobs: int, **more: object) -> dict[str, object]:
    """Return the section `scaling`: so many jobs at most, with node-hours enough."""
    return {"caps": {"jobs": jobs, "node_hours_per_day": 100}} | more
