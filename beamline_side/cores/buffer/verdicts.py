"""What happens when a task of a buffer gets its verdict: which component is told, and which rows are kept.

Theory: every verdict goes to the distributor (`intake`); an abandoned one to the sorter too (`verdicts_to_sorter`), because no
other component would tell it; a task that failed too often stays as a dead letter (`dead_letters`). If the sorter has its result
nevertheless, that is the verdict; it is reported as the next generation and replaces the first. No clock.
Invariant: each change of an open task leaves as rows and messages of one batch, or not at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from beamline_side.cores.buffer.dead_letters import DeadLetterBox
from beamline_side.cores.buffer.intake import Intake
from beamline_side.cores.buffer.open_task import Change, Grant, OpenTask, Verdict
from beamline_side.cores.buffer.verdicts_to_sorter import VerdictsToSorter
from beamtide.machine import Effect
from beamtide.messages.base import Ok, Refused
from beamtide.messages.dead_letters import DeadLetter
from beamtide.messages.results import StoredBefore
from beamtide.messages.tasks import Closed


@dataclass(slots=True)
class Verdicts:
    """The three destinations of verdicts."""

    intake: Intake
    letters: DeadLetterBox
    to_sorter: VerdictsToSorter
    done: int = 0
    abandoned: int = 0

    def settle(self, changes: Iterable[Change]) -> list[Effect]:
        """Return the rows and messages of some changes; grants are handled elsewhere."""
        effects: list[Effect] = []
        for change in changes:
            if isinstance(change, Verdict):
                effects += self._close(change)
            elif not isinstance(change, Grant):
                effects.append(change)
        return effects

    def abandon(self, open_tasks: Iterable[OpenTask], reason: str) -> list[Effect]:
        """End tasks that are not leased."""
        return self.settle([change for open_task in open_tasks for change in open_task.over(reason)])

    def retried(self, letters: Iterable[DeadLetter]) -> list[Effect]:
        """Withdraw unsent verdicts of tasks that are retried and will get another one."""
        return [effect for letter in letters for effect in self.to_sorter.forget(letter.task.id)]

    def heard(self, answer: Ok | Refused | StoredBefore) -> list[Effect]:
        """Handle the sorter's answer to an abandoned verdict."""
        if not isinstance(answer, StoredBefore):
            return self.to_sorter.heard(answer)
        if (given_up := self.to_sorter.generation(answer.task)) is None:
            return []
        self.abandoned, self.done = self.abandoned - 1, self.done + 1
        closed = Closed(task=answer.task, outcome=answer.outcome, generation=given_up + 1)
        return [*self.to_sorter.forget(answer.task), *self.letters.drop([answer.task]), *self.intake.to_distributor.add(closed)]

    def _close(self, verdict: Verdict) -> list[Effect]:
        task = verdict.task
        closed = Closed(task=task.id, outcome=verdict.outcome, reason=verdict.reason, generation=task.generation)
        effects = self.intake.to_distributor.add(closed)
        effects += self.letters.add(verdict.letter) if verdict.letter else []
        if verdict.outcome != "abandoned":
            self.done += 1
            return effects
        self.abandoned += 1
        return effects + self.to_sorter.add(task, verdict.attempt, verdict.reason)
