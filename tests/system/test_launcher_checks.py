"""`testing.check_launcher`: a good launcher passes it, and each mistake of an author is seen by it."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from beamtide import testing
from cluster_side.scaling.launchers import conformance, local
from cluster_side.scaling.launchers.base import JobListing, JobOrder, Phase, Seen, SubmitAnswer, Submitted
from cluster_side.scaling.launchers.local import LocalLauncher
from cluster_side.scaling.launchers.trial import Trial, trial_site

pytestmark = pytest.mark.system
PATIENCE = 2.0


def test_the_launcher_of_this_machine_passes(tmp_path: pathlib.Path) -> None:
    testing.check_launcher(LocalLauncher, tmp_path)


class Changed(LocalLauncher):
    """A launcher that shows jobs otherwise than they are."""

    def look(self) -> JobListing:
        listing = super().look()
        assert isinstance(listing, Seen)
        return Seen(self.changed(dict(listing.jobs)))

    def changed(self, jobs: dict[str, local.Sighting]) -> Mapping[str, local.Sighting]:
        return jobs


class OneId(LocalLauncher):
    def submit(self, order: JobOrder) -> SubmitAnswer:
        answer = super().submit(order)
        return Submitted(answer.ids[:1] * len(answer.ids)) if isinstance(answer, Submitted) else answer


class StartsOne(LocalLauncher):
    def submit(self, order: JobOrder) -> SubmitAnswer:
        super().submit(replace(order, count=1))
        return Submitted(tuple(f"{order.token}-{number}" for number in range(order.count)))


class ForgetsTokens(Changed):
    def changed(self, jobs: dict[str, local.Sighting]) -> Mapping[str, local.Sighting]:
        return {job: replace(one, token="") for job, one in jobs.items()}


class ForgetsEnds(Changed):
    def changed(self, jobs: dict[str, local.Sighting]) -> Mapping[str, local.Sighting]:
        return {job: one for job, one in jobs.items() if one.phase is Phase.RUNNING}


class AllIsWell(Changed):
    def changed(self, jobs: dict[str, local.Sighting]) -> Mapping[str, local.Sighting]:
        return {job: replace(one, cause=local.EndCause.DONE) if one.cause else one for job, one in jobs.items()}


class SaysNoReason(Changed):
    def changed(self, jobs: dict[str, local.Sighting]) -> Mapping[str, local.Sighting]:
        return {job: replace(one, reason="failed") for job, one in jobs.items()}


class OtherNames(Changed):
    def changed(self, jobs: dict[str, local.Sighting]) -> Mapping[str, local.Sighting]:
        return {job: replace(one, restarts=1) for job, one in jobs.items()}


class NoEnvironment(LocalLauncher):
    def submit(self, order: JobOrder) -> SubmitAnswer:
        return super().submit(replace(order, env={"WHO": "nobody"}))


class ThroughAShell(LocalLauncher):
    def submit(self, order: JobOrder) -> SubmitAnswer:
        return super().submit(replace(order, argv=("sh", "-c", " ".join(f'"{word}"' for word in order.argv))))


class CancelsAll(LocalLauncher):
    def cancel(self, ids: Sequence[str]) -> None:
        super().cancel(tuple(self._jobs) if ids else ())


class CancelsByForce(LocalLauncher):
    def cancel(self, ids: Sequence[str]) -> None:
        for job in ids:
            self._jobs[job].token.strip()  # an id that is gone is an error here
        super().cancel(ids)


class ForgetsOrphans(LocalLauncher):
    def __init__(self, deployment: local.Deployment) -> None:
        super().__init__(deployment)
        self._jobs = {}


class StartsPreviews(LocalLauncher):
    def problems(self, orders: Sequence[JobOrder]) -> tuple[str, ...]:
        if not self._jobs:
            self.submit(orders[0])
        return super().problems(orders)


class OddStart(LocalLauncher):
    first_start = 0.0


MISTAKES: list[tuple[type[LocalLauncher], Callable[[Trial], None], str]] = [
    (OddStart, conformance.states_what_it_is, "first_start is 0.0"),
    (OneId, conformance.runs_an_array, "three jobs must have three ids"),
    (StartsOne, conformance.runs_an_array, "never: job tok-1-1 ended"),
    (ForgetsTokens, conformance.runs_an_array, "a job that ended well is"),
    (ForgetsEnds, conformance.runs_an_array, "never: job tok-1-0 ended"),
    (OtherNames, conformance.names_jobs_as_their_workers_do, r"would lease as tok-1-0; start it with BEAMTIDE_JOB=tok-1-0\+1"),
    (NoEnvironment, conformance.names_jobs_as_their_workers_do, "arrived as 'nobody'"),
    (ThroughAShell, conformance.passes_words_as_they_are, "arrived as|never"),
    (AllIsWell, conformance.says_how_jobs_failed, "the exit code 3 is shown as EndCause.DONE"),
    (SaysNoReason, conformance.tells_what_a_job_said_last, "the reason is 'failed'"),
    (CancelsAll, conformance.cancels_what_it_is_told_and_nothing_else, "never: job tok-1-2 running"),
    (CancelsByForce, conformance.cancels_what_it_is_told_and_nothing_else, "KeyError"),
    (ForgetsOrphans, conformance.finds_jobs_again_by_their_token, "never: job tok-7-0 running"),
    (StartsPreviews, conformance.previews_start_nothing, "a preview started a job"),
]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "check", "said"), MISTAKES, ids=[kind.__name__ for kind, *_ in MISTAKES])
def test_every_mistake_is_seen(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[LocalLauncher],
    check: Callable[[Trial], None],
    said: str,
) -> None:
    monkeypatch.setattr(conformance, "CHECKS", (check,))
    try:
        with pytest.raises(AssertionError, match=f"{check.__name__}: .*({said})"):
            testing.check_launcher(kind, tmp_path, patience=PATIENCE)
    finally:
        left = LocalLauncher(trial_site(tmp_path / check.__name__, {}))
        left.cancel(tuple(left._jobs))
