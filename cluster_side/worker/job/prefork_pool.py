"""The prefork pool: a parent process that has loaded everything, and forks worker processes that take one task each.

Theory: imports and calibration cost seconds, a fork costs milliseconds. So the parent loads the kernel once and owns nothing that
a fork would break: no socket, no thread, no open file except the pipes of its worker processes. Through a pipe it learns which
task each worker process holds. So one that dies is reported at once, by another forked process, and not only when its lease
expires; the report holds the end of its standard error output (`captured_stderr`).
Forking a process that has loaded much takes milliseconds, and a slot would stay empty meanwhile. So one worker process is forked
before it is needed (`spare`): it connects to the buffer, warms up, and waits for permission to start. It holds no task.
All decisions are in `job_policy.py`.

Clock policy: `beamtide.clock.monotonic`, passed on to `job_policy`.
"""

import gc
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from beamtide import clock, registry
from beamtide.config import settings, site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.pump import Caller
from cluster_side.worker.job import job_policy, memory_use, warm_up, worker_process
from cluster_side.worker.job.worker_process import WorkerProcess
from cluster_side.worker.task import captured_stderr, one_task, ready_kernel
from cluster_side.worker.task.ready_kernel import FindModality
from cluster_side.worker.task.work import End, Work

TICK = 0.5
REPORT_PATIENCE = 10.0


@dataclass(slots=True)
class PreforkPool:
    """The shell around `JobPolicy`."""

    work: Work
    policy: job_policy.JobPolicy
    processes: dict[int, WorkerProcess] = field(default_factory=dict)
    leaving: list[WorkerProcess] = field(default_factory=list)
    """Worker processes that have sent their last report and are exiting; freeing their memory takes as long as a fork."""
    spare: WorkerProcess | None = None
    """Forked, and not started."""
    reporters: list[int] = field(default_factory=list)
    told: bool = False
    memory_mb: int = 0
    """What a worker may take beyond what it shares with us, in MiB (0: as much as there is)."""
    script: bytes = field(default_factory=warm_up.script)
    """The HDF5 file with which a spare worker process warms up."""
    pins: tuple[frozenset[int], ...] = ()
    """The CPUs of each slot; empty where workers are not pinned."""

    def run(self) -> job_policy.Exit:
        """Run until the job is over."""
        gc.collect()
        gc.freeze()  # worker processes share our memory; collecting would copy it
        awake = _wake_on_signals(self._told)
        ended = self._apply(self.policy.handle(job_policy.TimePassed(), clock.monotonic()))
        while ended is None:
            pipes = [one.pipe for one in self.processes.values()]
            readable, _, _ = select.select([awake, *pipes], [], [], TICK)
            if awake in readable:
                os.read(awake, 4096)
            for event in self._events():
                ended = self._apply(self.policy.handle(event, clock.monotonic())) or ended
            # workers that ask for a task need the CPU now
            if self.spare is None and self.policy.wants_more and not self.policy.idle:
                self.spare = worker_process.fork(self._work_warmed_up)
        self._wait_for_reports()
        return ended

    def _told(self, *_: object) -> None:
        self.told = True

    def _events(self) -> list[job_policy.Event]:
        events: list[job_policy.Event] = [job_policy.SignalTerm()] if self.told else []
        self.told = False
        for one in list(self.processes.values()):
            self._check_memory(one)
            pid, status = os.waitpid(one.pid, os.WNOHANG)
            events += worker_process.heard(one)
            if pid:
                del self.processes[one.number]
                stderr = captured_stderr.tail(one.stderr.fileno())
                worker_process.clean_up(one)
                death = one.excess or captured_stderr.cause_of_death(status)
                events.append(job_policy.WorkerEnded(one.number, one.said, death, stderr, guilty=bool(one.excess)))
            elif one.said in job_policy.FINAL_REPORTS:
                self.leaving.append(self.processes.pop(one.number))
                events.append(job_policy.WorkerEnded(one.number, one.said))
        for one in [one for one in self.leaving if os.waitpid(one.pid, os.WNOHANG)[0]]:
            self.leaving.remove(one)
            worker_process.clean_up(one)
        self.reporters = [pid for pid in self.reporters if not os.waitpid(pid, os.WNOHANG)[0]]
        return [*events, job_policy.TimePassed()]

    def _check_memory(self, one: WorkerProcess) -> None:
        """Kill a worker process that takes more memory than it may, before the kernel kills another process for it."""
        if not self.memory_mb or one.excess:
            return
        taken = memory_use.resident_mb(one.pid) - memory_use.resident_mb(os.getpid())
        if taken > self.memory_mb:
            one.excess = (
                f"was ended because it took {taken} MiB, and job.memory_per_slot allows {self.memory_mb} MiB: raise that in the "
                "pipeline file, or make tasks smaller (source.frames_per_task)"
            )
            os.kill(one.pid, signal.SIGKILL)

    def _apply(self, effects: list[job_policy.Effect]) -> job_policy.Exit | None:
        for effect in effects:
            match effect:
                case job_policy.StartWorker(number):
                    self.processes[number] = self._start(number)
                case job_policy.StopWorker(number, kill) if number in self.processes:
                    os.kill(self.processes[number].pid, signal.SIGKILL if kill else signal.SIGTERM)
                case job_policy.ReportLoss():
                    self._report(effect)
                case job_policy.Exit():
                    return effect
        return None

    def _start(self, number: int) -> WorkerProcess:
        """Let the spare worker process start, or fork one now."""
        one, self.spare = self.spare, None
        if one is not None and os.waitpid(one.pid, os.WNOHANG)[0]:
            worker_process.clean_up(one)
            one = None
        one = one or worker_process.fork(self._work_alone)
        one.number = number
        one.place = min(set(range(self.policy.slots)) - {other.place for other in self.processes.values()})
        if self.pins:
            os.sched_setaffinity(one.pid, self.pins[one.place])
        worker_process.let_begin(one)
        return one

    def _work_alone(self, tell: worker_process.Tell, begun: worker_process.Begun) -> int:
        return one_task.run(self.work, tell, begun)

    def _work_warmed_up(self, tell: worker_process.Tell, begun: worker_process.Begun) -> int:
        def ready() -> bool:
            warm_up.run(self.script)
            return begun()

        return one_task.run(self.work, tell, ready)

    def _report(self, loss: job_policy.ReportLoss) -> None:
        def report() -> int:
            with Caller(self.work.identity) as caller:
                end = End(loss.cause, loss.reason, stderr=loss.stderr)
                one_task.report_failure(self.work, caller, (loss.task, loss.attempt, loss.worker), end)
            return 0

        parent = os.getpid()
        if pid := os.fork():
            self.reporters.append(pid)
        else:
            worker_process.become(parent, report)

    def _wait_for_reports(self) -> None:
        """Wait a moment for processes that exit or report a loss; if a report does not arrive, the lease expires instead."""
        if self.spare is not None:
            os.kill(self.spare.pid, signal.SIGKILL)
            os.waitpid(self.spare.pid, 0)
        end = clock.monotonic() + REPORT_PATIENCE
        while (self.leaving or self.reporters) and clock.monotonic() < end:
            self._events()
            clock.pause(0.01)


def prepare_work(  # noqa: PLR0913  what a job starts with
    deployment: Deployment,
    pipeline: str,
    job: str,
    idle_exit: float,
    find: FindModality,
    *,
    ends: float | None = None,
) -> Work:
    """Load the kernel for the pipeline's current settings and the format of its files; BadInput if they cannot be read.

    Settings that the modality refuses are no reason not to work: each task of them is abandoned with the modality's sentence.
    """
    if pipeline not in deployment.pipelines:
        raise BadInput(f"there is no pipeline {pipeline!r}; this site has: {', '.join(deployment.pipelines)}")
    registry.find("formats", deployment.pipelines[pipeline].source.format)
    prepared = settings.document_for(deployment.pipelines[pipeline], site.shared_root(deployment), deployment.pipelines)
    try:
        ready = ready_kernel.prepare(prepared, deployment.site.state / "cache", find)
    except ready_kernel.SettingsRefused as error:  # a job that dies of it would be started again; its tasks end with the reason
        return Work(deployment, pipeline, job, idle_exit, None, find, ends, refused=error)
    return Work(deployment, pipeline, job, idle_exit, ready, find, ends)


def _wake_on_signals(told: Callable[..., None]) -> int:
    """Return a pipe that becomes readable with every signal; SIGTERM and SIGINT call `told`."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    return reading
