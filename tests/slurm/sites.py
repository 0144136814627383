"""Sites with Slurm for the tests of launchers; orders and waiting are those of `launchers.trial`."""

import pathlib

from beamtide.config.models import Deployment
from beamtide.config.slurm import Slurm
from cluster_side.scaling.launchers.trial import PAUSE, POLITE, order, seen, settle, wait_for, wait_until
from tests.builders.sites import make_pipeline, make_site

__all__ = ["PAUSE", "POLITE", "order", "seen", "settle", "site_in", "wait_for", "wait_until"]


def site_in(folder: pathlib.Path, launcher: str = "slurm", **slurm: object) -> Deployment:
    """Return a site with one pipeline; Slurm is looked at as often as it is asked for, unless `look_every` is given."""
    quick = Slurm.model_validate(slurm)
    if "look_every" not in slurm:
        quick = quick.model_copy(update={"look_every": 0.01})
    made = make_site(folder, make_pipeline(), site="p06", jobs=4, launcher=launcher, beamtime="11010000")
    return made.model_copy(update={"site": made.site.model_copy(update={"slurm": quick})})
