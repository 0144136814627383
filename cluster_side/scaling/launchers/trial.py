"""A small site and jobs that run a Python program, to try a launcher on: what to order, and how to wait for what comes of it.

Clock policy: `beamtide.clock`; every wait has an end, and says what it waited for.
"""

import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from beamtide import clock
from beamtide.config.models import CapsConfig, Deployment, PipelineConfig, Roots, ScalingConfig, SiteConfig, SourceConfig
from cluster_side.scaling.launchers.base import JobListing, JobOrder, JobShape, Launcher, Phase, Seen, Sighting, job_name

NAME, PIPELINE = "trial", "trial"
PAUSE = "import signal; print('up', flush=True); signal.pause()"
POLITE = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
ALIVE = (Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN)
Found = TypeVar("Found")


def trial_site(folder: pathlib.Path, settings: Mapping[str, Any]) -> Deployment:
    """Return a site with one pipeline, whose launcher has these settings."""
    site = SiteConfig(
        site="trial",
        roots=Roots(raw=folder, processed=folder),
        state=folder,
        scaling=ScalingConfig(caps=CapsConfig(jobs=4, node_hours_per_day=100)),
        pipelines=(),
        launcher=NAME,
        launchers={NAME: dict(settings)},
    )
    pipelines = {PIPELINE: PipelineConfig(pipeline=PIPELINE, modality="trial", source=SourceConfig(match="*"))}
    return Deployment(site=site, pipelines=pipelines, file=folder / "site.yaml")


@dataclass
class Trial:
    """A launcher on trial: `make` returns a new one, as after a restart of the autoscaler."""

    deployment: Deployment
    make: Callable[[Deployment], Launcher]
    patience: float = 20.0
    """Seconds within which the batch system starts a job, and ends one that is cancelled."""
    launchers: list[Launcher] = field(default_factory=list)

    def launcher(self) -> Launcher:
        """Return a new launcher."""
        self.launchers.append(self.make(self.deployment))
        return self.launchers[-1]

    def order(self, token: str, program: str = "pass", count: int = 1, words: tuple[str, ...] = ()) -> JobOrder:
        """Return an order for jobs that run a Python program."""
        return order(self.deployment, token, program, count, words)

    def settle(self, launcher: Launcher, job: str, *phases: Phase) -> Sighting:
        """Wait until a job is in one of these phases."""
        return settle(launcher, job, *phases, patience=self.patience)

    def log_of(self, job: str, pattern: str = ".") -> str:
        """Return what a job wrote, once it has written something like that."""

        def written() -> list[str]:
            name = job_name(self.deployment, next(iter(self.deployment.pipelines)))
            logs = (self.deployment.site.state / "logs").glob(f"{name}-{job.partition(';')[0]}*.log")
            return [text for log in logs if re.search(pattern, text := log.read_text(errors="replace"))]

        wait_until(written, f"something in the log <logs>/<name of the job>-{job}.log", self.patience)
        return written()[0]

    def end(self) -> None:
        """End what still runs; every launcher sees it."""
        for launcher in self.launchers:
            launcher.cancel(tuple(seen(launcher, self.patience).jobs))
        for launcher in self.launchers:
            wait_for(launcher, all_gone, "an end of all jobs", self.patience)


def order(deployment: Deployment, token: str, program: str = "pass", count: int = 1, words: tuple[str, ...] = ()) -> JobOrder:
    """Return an order of the only pipeline for jobs that run a Python program."""
    (pipeline,) = deployment.pipelines.values()
    return JobOrder(
        pipeline=pipeline.pipeline,
        modality=pipeline.modality,
        token=token,
        count=count,
        slots=1,
        tasks=1,
        shape=JobShape(memory_mb=100, walltime_s=600),
        name=job_name(deployment, pipeline.pipeline),
        argv=(sys.executable, "-c", program, str(deployment.file), *words),
        logs=deployment.site.state / "logs",
        env={"WHO": "me & my $HOME"},
    )


def all_gone(listing: JobListing) -> bool | None:
    """Return True when no job lives, None before."""
    return (isinstance(listing, Seen) and not any(job.phase in ALIVE for job in listing.jobs.values())) or None


def seen(launcher: Launcher, patience: float = 20.0) -> Seen:
    """Return the next good picture."""
    return wait_for(launcher, lambda listing: listing if isinstance(listing, Seen) else None, "a picture", patience)


def settle(launcher: Launcher, job: str, *phases: Phase, patience: float = 20.0) -> Sighting:
    """Wait until a job is in one of these phases."""

    def there(listing: JobListing) -> Sighting | None:
        sighting = listing.jobs.get(job) if isinstance(listing, Seen) else None
        return sighting if sighting and sighting.phase in phases else None

    return wait_for(launcher, there, f"job {job} {' or '.join(phase.value for phase in phases)}", patience)


def wait_for(launcher: Launcher, found: Callable[[JobListing], Found | None], what: str, patience: float = 20.0) -> Found:
    """Look until `found` finds something."""
    end, listing = clock.monotonic() + patience, launcher.look()
    while clock.monotonic() < end:
        if (result := found(listing)) is not None:
            return result
        clock.pause(0.01)
        listing = launcher.look()
    raise AssertionError(f"never: {what}; last picture: {listing}")


def wait_until(true: Callable[[], object], what: str, patience: float = 20.0) -> None:
    """Wait for anything else."""
    end = clock.monotonic() + patience
    while not true():
        assert clock.monotonic() < end, f"never: {what}"
        clock.pause(0.01)
