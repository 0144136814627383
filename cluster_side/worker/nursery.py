"""The nursery: a parent that has loaded everything, and forks workers that take one task each.

Theory: imports and calibration cost seconds, a fork costs milliseconds. So the parent loads the kernel once and owns nothing that
a fork would break: no socket, no thread, no open file but the pipes of its children. It learns from a pipe what each child
holds, so that a child that dies is reported at once, by one more child, instead of when its lease runs out, with what the
dead one wrote last (`last_words`).
All decisions are in `life.py`.

Clock policy: `beamtide.clock.monotonic`, passed on to `life`.
"""

import gc
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from beamtide import clock, lifeline, settings, site
from beamtide.config import Deployment
from beamtide.errors import BadInput, NoAnswer
from beamtide.pump import Caller
from cluster_side.worker import last_words, life, one_task, recipe, weight
from cluster_side.worker.one_task import End, Work

TICK = 0.5
REPORT_PATIENCE = 10.0


@dataclass(slots=True)
class Child:
    """A worker process, and what it has said so far."""

    number: int
    pid: int
    pipe: int
    words: BinaryIO
    said: life.Said = ""
    rest: bytes = b""
    place: int = 0
    """Which of the job's rooms it is in."""
    excess: str = ""
    """Why it was killed: it took more memory than it may."""


@dataclass(slots=True)
class Nursery:
    """The shell around `Life`."""

    work: Work
    plan: life.Life
    children: dict[int, Child] = field(default_factory=dict)
    leaving: list[Child] = field(default_factory=list)
    """Those who said their last word, and whose memory the kernel takes down: that lasts as long as to fork the next."""
    reporters: list[int] = field(default_factory=list)
    told: bool = False
    memory_mb: int = 0
    """What a worker may take beyond what it shares with us, in MiB (0: as much as there is)."""
    pins: tuple[frozenset[int], ...] = ()
    """The CPUs of each room; empty where workers are not pinned."""

    def run(self) -> life.Exit:
        """Live until the job is over."""
        gc.collect()
        gc.freeze()  # children share our memory; collecting would copy it
        awake = _wake_on_signals(self._told)
        exit_wish = self._apply(self.plan.handle(life.Tick(), clock.monotonic()))
        while exit_wish is None:
            pipes = [child.pipe for child in self.children.values()]
            readable, _, _ = select.select([awake, *pipes], [], [], TICK)
            if awake in readable:
                os.read(awake, 4096)
            for event in self._events():
                exit_wish = self._apply(self.plan.handle(event, clock.monotonic())) or exit_wish
        self._see_off()
        return exit_wish

    def _told(self, *_: object) -> None:
        self.told = True

    def _events(self) -> list[life.Event]:
        events: list[life.Event] = [life.SignalTerm()] if self.told else []
        self.told = False
        for child in list(self.children.values()):
            self._weigh(child)
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            events += _heard(child)
            if pid:
                del self.children[child.number]
                stderr = last_words.tail(child.words.fileno())
                _see_out(child)
                death = child.excess or last_words.death(status)
                events.append(life.ChildEnded(child.number, child.said, death, stderr, guilty=bool(child.excess)))
            elif child.said in life.LAST_WORDS:
                self.leaving.append(self.children.pop(child.number))
                events.append(life.ChildEnded(child.number, child.said))
        for child in [one for one in self.leaving if os.waitpid(one.pid, os.WNOHANG)[0]]:
            self.leaving.remove(child)
            _see_out(child)
        self.reporters = [pid for pid in self.reporters if not os.waitpid(pid, os.WNOHANG)[0]]
        return [*events, life.Tick()]

    def _weigh(self, child: Child) -> None:
        """End a child that takes more memory than it may, before the kernel ends somebody else."""
        if not self.memory_mb or child.excess:
            return
        taken = weight.resident_mb(child.pid) - weight.resident_mb(os.getpid())
        if taken > self.memory_mb:
            child.excess = (
                f"was ended because it took {taken} MiB, and job.memory_per_slot allows {self.memory_mb} MiB: raise that in the "
                "pipeline file, or make tasks smaller (source.frames_per_task)"
            )
            os.kill(child.pid, signal.SIGKILL)

    def _apply(self, effects: list[life.Effect]) -> life.Exit | None:
        for effect in effects:
            match effect:
                case life.StartChild(number):
                    self.children[number] = self._fork(number)
                case life.StopChild(number, kill) if number in self.children:
                    os.kill(self.children[number].pid, signal.SIGKILL if kill else signal.SIGTERM)
                case life.ReportLoss():
                    self._report(effect)
                case life.Exit():
                    return effect
        return None

    def _fork(self, number: int) -> Child:
        reading, writing = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        words = last_words.begin()
        place = min(set(range(self.plan.slots)) - {child.place for child in self.children.values()})
        pid = os.fork()
        if pid:
            os.close(writing)
            os.set_blocking(reading, False)
            return Child(number, pid, reading, words, place=place)
        last_words.adopt(words)
        if self.pins:
            os.sched_setaffinity(0, self.pins[place])
        _as_child(parent, lambda: one_task.run(self.work, lambda fact: _tell(writing, fact)))

    def _report(self, loss: life.ReportLoss) -> None:
        def report() -> int:
            with Caller(self.work.identity) as caller:
                end = End(loss.cause, loss.reason, stderr=loss.stderr)
                one_task.report_failure(self.work, caller, (loss.task, loss.attempt, loss.worker), end)
            return 0

        parent = os.getpid()
        if pid := os.fork():
            self.reporters.append(pid)
        else:
            _as_child(parent, report)

    def _see_off(self) -> None:
        """Give those who leave or report a loss a moment; what they do not bring, the end of the lease will."""
        end = clock.monotonic() + REPORT_PATIENCE
        while (self.leaving or self.reporters) and clock.monotonic() < end:
            self._events()
            clock.pause(0.01)


def open_nursery(  # noqa: PLR0913  what a job is born with
    deployment: Deployment, pipeline: str, job: str, idle_exit: float, find: recipe.FindModality, *, ends: float | None = None
) -> Work:
    """Load the kernel for the pipeline's current settings; BadInput if they cannot be used."""
    if pipeline not in deployment.pipelines:
        raise BadInput(f"there is no pipeline {pipeline!r}; this site has: {', '.join(deployment.pipelines)}")
    prepared = settings.document_for(deployment.pipelines[pipeline], site.shared_root(deployment), deployment.pipelines)
    ready = recipe.prepare(prepared, deployment.site.state / "cache", find)
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


def _as_child(parent: int, do: Callable[[], int]) -> NoReturn:
    """Be a child: die with the parent, leave on SIGTERM, never return."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which decides
        signal.signal(signal.SIGTERM, _leave)
        lifeline.die_with(parent, signal.SIGTERM)
        code = do()
    except (one_task.Leave, NoAnswer):
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: handing back must not be interrupted
    raise one_task.Leave


def _tell(pipe: int, fact: dict[str, Any]) -> None:
    try:
        os.write(pipe, one_task.line(fact))
    except BrokenPipeError:
        pass  # the parent is gone; we are about to be told


def _heard(child: Child) -> list[life.Event]:
    """Return the leases that a child told of, and note its last word."""
    try:
        child.rest += os.read(child.pipe, 65536)
    except BlockingIOError:
        return []
    *lines, child.rest = child.rest.split(b"\n")
    events: list[life.Event] = []
    for text in lines:
        fact = json.loads(text)
        if "leased" in fact:
            events.append(life.ChildLeased(child.number, fact["leased"], fact["attempt"], fact["worker"]))
        child.said = fact.get("said", child.said)
    return events


def _see_out(child: Child) -> None:
    """Close what we had of a child that is gone, and pass on what it wrote."""
    os.close(child.pipe)
    last_words.pass_on(child.words)
