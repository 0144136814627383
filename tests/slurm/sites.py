"""Sites and orders for the tests of launchers."""

import pathlib
import sys
from collections.abc import Callable
from typing import TypeVar

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.config.slurm import Slurm
from cluster_side.scaling.launchers.base import JobListing, JobOrder, JobShape, Launcher, Phase, Seen, Sighting, job_name
from tests.builders.sites import make_pipeline, make_site

PAUSE = "import signal; signal.pause()"
T = TypeVar("T")
POLITE = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"


def site_in(folder: pathlib.Path, launcher: str = "slurm", **slurm: object) -> Deployment:
    """Return a site with one pipeline; Slurm is looked at as often as it is asked for, unless `look_every` is given."""
    quick = Slurm.model_validate(slurm)
    if "look_every" not in slurm:
        quick = quick.model_copy(update={"look_every": 0.01})
    made = make_site(folder, make_pipeline(), site="p06", jobs=4, launcher=launcher, beamtime="11010000")
    return made.model_copy(update={"site": made.site.model_copy(update={"slurm": quick})})


def order(deployment: Deployment, token: str, program: str = "pass", count: int = 1, words: tuple[str, ...] = ()) -> JobOrder:
    """Return an order for jobs that run a Python program."""
    return JobOrder(
        pipeline="xrf",
        modality="xrf",
        token=token,
        count=count,
        slots=1,
        tasks=1,
        shape=JobShape(memory_mb=100, walltime_s=600),
        name=job_name(deployment, "xrf"),
        argv=(sys.executable, "-c", program, str(deployment.file), *words),
        logs=deployment.site.state / "logs",
        env={"WHO": "me & my $HOME"},
    )


def seen(launcher: Launcher, patience: float = 20.0) -> Seen:
    """Return the next good picture."""
    return wait_for(launcher, lambda listing: listing if isinstance(listing, Seen) else None, "a picture", patience)


def settle(launcher: Launcher, job: str, *phases: Phase, patience: float = 20.0) -> Sighting:
    """Wait until a job is in one of these phases."""

    def there(listing: JobListing) -> Sighting | None:
        sighting = listing.jobs.get(job) if isinstance(listing, Seen) else None
        return sighting if sighting and sighting.phase in phases else None

    return wait_for(launcher, there, f"{job} {phases}", patience)


def wait_for(launcher: Launcher, found: Callable[[JobListing], T | None], what: str, patience: float = 20.0) -> T:
    """Look until `found` finds something."""
    end, listing = clock.monotonic() + patience, launcher.look()
    while clock.monotonic() < end:
        if (result := found(listing)) is not None:
            return result
        clock.pause(0.01)
        listing = launcher.look()
    raise AssertionError(f"never: {what}; last picture: {listing}")
