"""Jobs that squeue no longer shows: whether to believe that they are gone. Pure.

Theory: a job that ends stays in squeue's answer for minutes (MinJobAge). When most of our living jobs vanish between two calls,
a bad answer (empty, with exit code 0, or from a controller that lost its state) is more likely than the truth: it is believed
only after a minute. A single job that vanishes is reported as unknown, which counts as alive; when it is missing for the second
time, the accounting is asked; after that it is left out.

Clock policy: `now` is monotonic seconds.
Invariants: no living job is left out at its first absence; an answer that is not believed is `Unseen`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster_side.scaling.launchers.base import EndCause, JobListing, Phase, Seen, Sighting, Unseen

CONFIRM_AFTER = 60.0
"""Seconds until an answer without most of our living jobs is believed."""
ABSENCES = 2
"""A job that is missing this often is asked for in the accounting, and then left out."""
LIVING = {Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN}


@dataclass(slots=True)
class VanishedJobs:
    """The living jobs of the last good answer."""

    living: dict[str, Sighting] = field(default_factory=dict)
    absences: dict[str, int] = field(default_factory=dict)
    ends: dict[str, Sighting] = field(default_factory=dict)
    """Jobs that squeue no longer shows and the accounting knows."""
    unbelieved_since: float | None = None

    def judge(self, seen: Seen, now: float) -> JobListing:
        """Return what to believe of an answer of squeue."""
        gone = [job for job in self.living if job not in seen.jobs and job not in self.ends]
        fresh = [job for job in gone if job not in self.absences]
        if 2 * len(fresh) <= len(self.living):
            self.unbelieved_since = None
        else:
            self.unbelieved_since = now if self.unbelieved_since is None else self.unbelieved_since
            if now - self.unbelieved_since < CONFIRM_AFTER:
                return Unseen(
                    f"squeue shows {len(self.living) - len(fresh)} of {len(self.living)} jobs that were alive a moment ago; "
                    f"this is believed if it stays so for {CONFIRM_AFTER:.0f} s"
                )
        jobs = dict(seen.jobs)
        for job in gone:
            self.absences[job] = self.absences.get(job, 0) + 1
            if self.absences[job] <= ABSENCES:
                jobs[job] = replace(self.living[job], phase=Phase.UNKNOWN, reason="squeue does not show it", cause=None)
        return self._keep(jobs | {job: end for job, end in self.ends.items() if job not in seen.jobs})

    def missing(self) -> tuple[str, ...]:
        """Return the jobs to ask accounting for."""
        return tuple(job for job, count in self.absences.items() if count == ABSENCES)

    def explain(self, known: Mapping[str, tuple[Phase, EndCause | None]], asked: Iterable[str]) -> None:
        """Take what accounting says of the jobs that it was asked for."""
        for job in asked:
            phase, cause = known.get(job.partition(";")[0], (Phase.UNKNOWN, None))
            if job in self.living and phase in (Phase.ENDED, Phase.FAILED):
                self.ends[job] = replace(self.living[job], phase=phase, cause=cause, reason="accounting says so")

    def _keep(self, jobs: dict[str, Sighting]) -> Seen:
        self.living = {job: sighting for job, sighting in jobs.items() if sighting.phase in LIVING}
        self.absences = {job: count for job, count in self.absences.items() if self.living.get(job, _GONE).phase is Phase.UNKNOWN}
        self.ends = {job: end for job, end in self.ends.items() if jobs.get(job) is not end}
        return Seen(jobs)


_GONE = Sighting("", "", Phase.ENDED)
