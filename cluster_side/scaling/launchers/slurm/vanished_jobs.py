"""What the queue showed before, and whether to believe what it shows now. PURE.

Theory: a job that ends stays in squeue's answer for minutes (MinJobAge). When most of our living jobs vanish between two looks,
a bad answer (an empty one with exit code 0, a controller that lost its state) is more likely than the truth: it is doubted for a
minute. A single job that vanishes is shown as unknown, which counts as alive; when it is missing for the second time, the
accounting is asked; after that it is left out.

Clock policy: `now` is monotonic seconds.
Invariants: no living job leaves the picture at its first absence; a doubted picture is `Unseen`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster_side.scaling.launchers.base import EndCause, JobListing, Phase, Seen, Sighting, Unseen

DOUBT = 60.0
"""Seconds until an answer without most of our living jobs is believed."""
ABSENCES = 2
"""A job that is missing this often is asked for in the accounting, and then left out."""
LIVING = {Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN}


@dataclass(slots=True)
class VanishedJobs:
    """The living jobs of the last good picture."""

    living: dict[str, Sighting] = field(default_factory=dict)
    absences: dict[str, int] = field(default_factory=dict)
    ends: dict[str, Sighting] = field(default_factory=dict)
    """Jobs that squeue lost and accounting knows."""
    doubted: float | None = None

    def judge(self, seen: Seen, now: float) -> JobListing:
        """Return the picture to show."""
        gone = [job for job in self.living if job not in seen.jobs and job not in self.ends]
        fresh = [job for job in gone if job not in self.absences]
        if 2 * len(fresh) <= len(self.living):
            self.doubted = None
        else:
            self.doubted = now if self.doubted is None else self.doubted
            if now - self.doubted < DOUBT:
                return Unseen(
                    f"squeue shows {len(self.living) - len(fresh)} of {len(self.living)} jobs that lived a moment ago; "
                    f"believed if it stays so for {DOUBT:.0f} s"
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
