"""A worker: one process that takes one task and exits.

The order matters: the result is stored (the sorter answers `Ok`) before the lease is acknowledged (`TaskDone`); so a worker may
die at any instant, and at worst its task is computed twice. While it computes, a thread with its own connection sends heartbeats;
if the answer is `Stale`, another worker has the task, and the process ends at once without storing anything.

Clock policy: times are durations in seconds from `beamtide.clock`.
"""

import platform
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from beamtide import clock
from beamtide.errors import BadInput, BeamtideError, Busy, NoAnswer
from beamtide.formats.base import LostFrames
from beamtide.machine import Arrays
from beamtide.messages import Message, Ok, Refused
from beamtide.messages.results import Hole, Provenance, RoomRequest, StoreRequest
from beamtide.messages.tasks import Lease, LeaseRequest, NoTask, Outcome, Stale, Task, TaskDone, TaskFailed
from beamtide.pump import Caller
from cluster_side.modalities.base import checked, sendable
from cluster_side.modalities.context import Context
from cluster_side.worker.task import captured_stderr, inputs, lease_heartbeat, live_inputs, previews, ready_kernel
from cluster_side.worker.task.given import Given
from cluster_side.worker.task.work import DEAD_MAN, Answer, End, Leave, Work, name

TRY = 15.0
LONGEST_WAIT = 2.0
WORTH_ASKING = 4 << 20
"""A result of more bytes asks for room before it is sent."""
MAX_TRACE, MAX_REASON = 8000, 2000


def run(work: Work, tell: Callable[[dict[str, Any]], None], begun: Callable[[], bool] = lambda: True) -> int:
    """Take one task and do it; return the exit code. `tell` passes facts to the parent; `begun` waits for its permission."""
    lease: Lease | None = None
    with Caller(work.identity) as caller:
        caller.connect(work.buffer)
        if not begun():
            return 0
        try:
            found = _lease(work, caller)
            if isinstance(found, NoTask):
                tell({"said": "leave" if found.leave else "notask", "reason": found.reason})
                return 0
            lease = found
            caller.connect(work.sorter)  # while the task is computed
            tell({"leased": lease.task.id, "attempt": lease.attempt, "worker": name()})
            progress = lease_heartbeat.begin(work, name(), lease, tell)
            tell({"said": _attempt(work, lease, caller, progress)})
        except NoAnswer as error:
            tell({"said": "silent", "reason": str(error)})
            return 4
        except Leave:
            if lease is not None:
                _fail(work, lease, caller, End("handback", "its job was told to leave"))
                tell({"said": "failed"})
            return 0
    return 0


def _lease(work: Work, caller: Caller) -> Lease | NoTask:
    """Wait for a task for `idle_exit` seconds, or as long as the buffer wants; NoAnswer after `DEAD_MAN` seconds of silence."""
    began, patience = clock.monotonic(), work.idle_exit
    while True:
        waited = clock.monotonic() - began
        wait = min(LONGEST_WAIT, max(0.0, patience - waited))
        left = max(0.001, work.ends - clock.monotonic()) if work.ends is not None else 0.0
        who = {"worker": name(), "job": work.job, "host": platform.node()}
        request = LeaseRequest(**who, wait=wait, left=left, stages=work.stages)
        answer, _ = _insist(caller, work.buffer, request, Message, tries=3 * (wait + 1))
        if isinstance(answer, Lease):
            return answer
        nothing = answer if isinstance(answer, NoTask) else NoTask()
        patience = max(work.idle_exit, nothing.linger)
        if nothing.leave or clock.monotonic() - began >= patience:
            return nothing


def _attempt(work: Work, lease: Lease, caller: Caller, progress: list[float]) -> str:
    """Compute and store; any exception of the task or its kernel becomes a fault."""
    began = clock.monotonic()
    try:
        headers, arrays, versions, holes = compute(work, lease.task, caller, progress, lease.attempt)
        seconds = clock.monotonic() - began
        result = StoreRequest(
            task=lease.task,
            attempt=lease.attempt,
            outcome="result" if headers else "empty",
            datasets=headers,
            provenance=Provenance(
                worker=name(), host=platform.node(), job=work.job, attempt=lease.attempt, seconds=seconds, versions=versions
            ),
            holes=holes,
        )
        if (size := sum(array.nbytes for array in arrays.values())) > WORTH_ASKING:
            _insist(caller, work.sorter, RoomRequest(task=lease.task.id, size=size), Message)
        _insist(caller, work.sorter, result, Ok, arrays=arrays)
    except NoAnswer:
        raise
    except Exception as error:
        trace, words = traceback.format_exc()[-MAX_TRACE:], captured_stderr.tail(captured_stderr.STDERR)
        final = isinstance(error, ready_kernel.SettingsRefused)
        return _fail(work, lease, caller, End("fault", sentence(error), trace, words, final))
    return _done(work, lease, caller, (result.outcome, clock.monotonic() - began))


def compute(
    work: Work, task: Task, caller: Caller, progress: list[float], attempt: int = 0
) -> tuple[Any, Arrays, dict[str, str], tuple[Hole, ...]]:
    """Read what a task needs and run its kernel; return headers, arrays, versions, and holes of what could not be read.

    `progress` holds the share done so far.
    """
    address, context = work.deployment.address, work.call(task)
    if work.refused is not None and work.refused.digest == task.settings:
        raise work.refused
    ready = work.ready
    if ready is None or ready.digest != task.settings:
        cache = work.deployment.site.state / "cache"
        ready = ready_kernel.obtain(task.settings, cache, (caller, address("metadata")), work.find)
    ready.check_source(work.deployment.pipelines[task.pipeline].source)
    feed = live_inputs.live_inputs_of(task, work.deployment, caller, context.team)
    tell = previews.teller(task, caller, previews.PreviewTarget(address("sink"), attempt, ready.declared), progress)
    context = replace(context, tell=tell, feed=feed)
    if feed is None:
        given, units = inputs.read(task, work.deployment.site.roots, caller, address("sink"))
        ready.suits(units)
        stated = inputs.units_of_files(task, work.deployment.site.roots)
        outputs, given = readable(ready, replace(given, arrays=dict(ready.in_units(given.arrays, stated))), context)
        holes = given.holes(task.start)
    else:
        frames, units = dict(feed.begin()), feed.units
        ready.suits(units)
        outputs, holes = feed.placed(ready.compute(frames, context), ready.declared), ()
    return checked(outputs, ready.declared, task.stop - task.start, units), sendable(outputs), ready.versions, holes


def readable(ready: ready_kernel.ReadyKernel, given: Given, context: Context) -> tuple[Arrays, Given]:
    """Run a kernel, again without the frames that turn out to be damaged; return its outputs for all indexes of the task."""
    while True:
        try:
            return given.spread(ready.compute(given.arrays, context), ready.declared), given
        except LostFrames as error:
            given = given.without(error.missing, context.team)


def _done(work: Work, lease: Lease, caller: Caller, end: tuple[Outcome, float]) -> str:
    message = TaskDone(worker=name(), task=lease.task.id, attempt=lease.attempt, outcome=end[0], seconds=end[1])
    answer, _ = _insist(caller, work.buffer, message, Message)
    return "stale" if isinstance(answer, Stale) else "done"


def _fail(work: Work, lease: Lease, caller: Caller, end: End) -> str:
    report_failure(work, caller, (lease.task.id, lease.attempt, name()), end)
    return "failed"


def report_failure(work: Work, caller: Caller, lease: tuple[Any, int, str], end: End) -> None:
    """Tell the buffer that an attempt (task, attempt, worker) ended without a result."""
    task, attempt, worker = lease
    failed = TaskFailed(
        worker=worker,
        task=task,
        attempt=attempt,
        cause=end.cause,
        reason=end.reason,
        trace=end.trace,
        host=platform.node(),
        job=work.job,
        stderr=end.stderr,
        at=clock.utc(),
        final=end.final,
    )
    _insist(caller, work.buffer, failed, Message)


def _insist(  # noqa: PLR0913  what `Caller.converse` takes
    caller: Caller, address: str, message: Message, expect: type[Answer], *, arrays: Arrays | None = None, tries: float = TRY
) -> tuple[Answer, Arrays]:
    """Send a request until there is an answer, with short time-outs (a service that dies loses requests), or NoAnswer."""
    end = clock.monotonic() + DEAD_MAN
    while True:
        try:
            answer = caller.converse(address, message, expect, arrays=arrays, patience=tries)
        except Busy:  # the service is alive: go on trying while the lease lasts
            end = clock.monotonic() + DEAD_MAN
            continue
        except NoAnswer:
            if clock.monotonic() >= end:
                raise
            continue
        if not isinstance(answer[0], Refused):
            return answer
        if answer[0].retry_after <= 0:
            raise BadInput(answer[0].reason)
        clock.pause(answer[0].retry_after)


def sentence(error: Exception) -> str:
    """Return an exception as one line; our own errors unchanged."""
    text = " ".join(str(error).split())[:MAX_REASON]
    return text if isinstance(error, BeamtideError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
