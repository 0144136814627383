"""The worker processes of a prefork pool, from fork to exit.

Theory: forking a process that has loaded much takes milliseconds, and so does connecting to the buffer. So a worker process is
forked early and started later: it connects and waits for one byte; until then it holds no task and asks for none. It writes
facts, one JSON object per line, into a pipe that its parent reads. It ends when its parent ends, and never returns from here.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, TypeAlias

from beamtide.component import parent_death
from beamtide.errors import NoAnswer
from cluster_side.worker.job import job_policy
from cluster_side.worker.task import captured_stderr
from cluster_side.worker.task.work import Leave

Tell: TypeAlias = Callable[[dict[str, Any]], None]
"""Passes a fact on to the parent."""
Begun: TypeAlias = Callable[[], bool]
"""Waits for permission to start; False: it will not come."""


@dataclass(slots=True)
class WorkerProcess:
    """A worker process, and what it has said so far."""

    pid: int
    pipe: int
    start: int
    """Pipe: one byte written here lets it start."""
    stderr: BinaryIO
    number: int = 0
    said: job_policy.LastReport = ""
    rest: bytes = b""
    place: int = 0
    """Which of the job's slots it is in."""
    excess: str = ""
    """Why it was killed: it took more memory than it may."""


def fork(work: Callable[[Tell, Begun], int]) -> WorkerProcess:
    """Fork a process that does `work`, which waits for permission to start; it exits with the code that `work` returns."""
    (reading, writing), (started, start) = os.pipe(), os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    stderr = captured_stderr.begin()
    pid = os.fork()
    if pid:
        os.close(writing)
        os.close(started)
        os.set_blocking(reading, False)
        return WorkerProcess(pid, reading, start, stderr)
    os.close(start)
    captured_stderr.adopt(stderr)
    become(parent, lambda: work(lambda fact: _tell(writing, fact), lambda: bool(os.read(started, 1))))


def let_begin(process: WorkerProcess) -> None:
    """Let a worker process start."""
    with contextlib.suppress(BrokenPipeError):  # it has just died, which will be noticed
        os.write(process.start, b"!")


def heard(process: WorkerProcess) -> list[job_policy.Event]:
    """Return the leases that a worker process reported, and note its last report."""
    try:
        process.rest += os.read(process.pipe, 65536)
    except BlockingIOError:
        return []
    *lines, process.rest = process.rest.split(b"\n")
    events: list[job_policy.Event] = []
    for text in lines:
        fact = json.loads(text)
        if "leased" in fact:
            events.append(job_policy.WorkerLeased(process.number, fact["leased"], fact["attempt"], fact["worker"]))
        process.said = fact.get("said", process.said)
    return events


def clean_up(process: WorkerProcess) -> None:
    """Close our ends of the pipes of a process that is gone, and pass on what it wrote."""
    os.close(process.pipe)
    os.close(process.start)
    captured_stderr.pass_on(process.stderr)


def become(parent: int, do: Callable[[], int]) -> NoReturn:
    """Go on as the forked process: end with the parent, leave on SIGTERM, never return.

    SIGTERM may come at any instant, also while we are leaving; whatever it interrupts, we must not go on as the parent would.
    """
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which decides
        signal.signal(signal.SIGTERM, _leave)
        parent_death.die_with(parent, signal.SIGTERM)
        code = do()
    except (Leave, NoAnswer):
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        finally:  # `_leave` raises once at most: from here on nothing does
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def line(fact: dict[str, Any]) -> bytes:
    """Return a fact as one line for the parent's pipe."""
    return json.dumps(fact).encode() + b"\n"


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: handing back must not be interrupted
    raise Leave


def _tell(pipe: int, fact: dict[str, Any]) -> None:
    try:
        os.write(pipe, line(fact))
    except BrokenPipeError:
        pass  # the parent is gone; we are about to be told
