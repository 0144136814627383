"""Sites with Slurm for the tests of launchers; orders and waiting are those of `launchers.trial`."""

import pathlib

from beamtide.config.models import CapsConfig, Deployment, PipelineConfig, Roots, ScalingConfig, SiteConfig, SourceConfig
from beamtide.config.slurm import Slurm
from cluster_side.scaling.launchers.trial import PAUSE, POLITE, order, seen, settle, wait_for, wait_until

__all__ = ["PAUSE", "POLITE", "order", "seen", "settle", "site_in", "wait_for", "wait_until"]


def site_in(folder: pathlib.Path, launcher: str = "slurm", **slurm: object) -> Deployment:
    """Return a site with one pipeline; Slurm is looked at as often as it is asked for, unless `look_every` is given."""
    quick = Slurm.model_validate(slurm)
    if "look_every" not in slurm:
        quick = quick.model_copy(update={"look_every": 0.01})
    site = SiteConfig(
        site="p06",
        roots=Roots(raw=folder, processed=folder),
        state=folder,
        scaling=ScalingConfig(caps=CapsConfig(jobs=4, node_hours_per_day=100)),
        pipelines=(),
        launcher=launcher,
        beamtime="11010000",
    ).model_copy(update={"slurm": quick})
    pipelines = {"xrf": PipelineConfig(pipeline="xrf", modality="xrf", source=SourceConfig(match="*"))}
    return Deployment(site=site, pipelines=pipelines, file=folder / "site.yaml")
