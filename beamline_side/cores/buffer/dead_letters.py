"""Dead letters: tasks that were abandoned after failures or losses, kept until a person retries or drops them.

Theory: a letter is a row of the spool; memory holds only ids, oldest first. A list is read from the spool in pieces of a few
megabytes. Only the newest `MOST` are kept: so many failures have the same few causes. A retry takes the letter and returns the
task with its next generation and its number of attempts, so that messages of old attempts are stale. A repeated retry changes
nothing.

No clock. Invariant: the ids in memory are those of the rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.base import ScanId, TaskId
from beamtide.messages.dead_letters import DeadLetter, DeadLetters, DeadListRequest
from beamtide.messages.tasks import Task

TABLE = "letters"
MOST = 10_000
PAGE = 500
LARGEST_ANSWER = 4 << 20


class DeadLetterRow(msgspec.Struct, frozen=True, array_like=True):
    """A letter and its position."""

    number: int
    letter: DeadLetter


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DeadLetterRow).decode


@dataclass(slots=True)
class DeadLetterBox:
    """The dead letters of one pipeline."""

    shelf: Shelf
    _names: dict[TaskId, ScanId] = field(default_factory=dict)
    _fresh: dict[TaskId, bytes] = field(default_factory=dict)
    _last: int = 0

    def __post_init__(self) -> None:
        rows = (_decode(body) for _, body in self.shelf.rows(TABLE))
        found = sorted((row.number, row.letter.task.id, row.letter.task.scan) for row in rows)
        self._names = {name: scan for _, name, scan in found}
        self._last = found[-1][0] if found else 0

    def add(self, letter: DeadLetter) -> list[Effect]:
        """Keep a letter; the oldest is deleted when there are too many."""
        name = letter.task.id
        self._names.pop(name, None)
        self._names[name] = letter.task.scan
        self._last += 1
        body = self._fresh[name] = _encode(DeadLetterRow(self._last, letter))
        oldest = [next(iter(self._names))] if len(self._names) > MOST else []
        return [Keep(TABLE, name, body), *self.drop(oldest)]

    def drop(self, tasks: Iterable[TaskId]) -> list[Effect]:
        """Delete letters."""
        known = [task for task in tasks if task in self._names]
        for task in known:
            del self._names[task]
            self._fresh.pop(task, None)
        return [Forget(TABLE, task) for task in known]

    def take(self, tasks: Iterable[TaskId]) -> tuple[list[DeadLetter], list[Effect]]:
        """Return the letters to retry, with their tasks in the next generation, and the effects that delete the letters."""
        known = [task for task in dict.fromkeys(tasks) if task in self._names]
        letters = [self._read(task) for task in known]
        return [msgspec.structs.replace(letter, task=_next(letter)) for letter in letters], self.drop(known)

    def answer(self, request: DeadListRequest) -> DeadLetters:
        """Return one letter, or a page of the list."""
        if request.task:
            letters = (self._read(request.task),) if request.task in self._names else ()
            return DeadLetters(letters=letters, total=len(letters))
        there = [name for name, scan in self._names.items() if request.scan in ("", scan)]
        newest = there[::-1][max(0, request.skip) :][:PAGE]
        page: list[DeadLetter] = []
        size = 0
        for name in newest:
            letter = msgspec.structs.replace(self._read(name), trace="", stderr="")
            size += len(_encode(letter))
            if page and size > LARGEST_ANSWER:
                break
            page.append(letter)
        return DeadLetters(letters=tuple(page), total=len(there))

    def written(self) -> None:
        """Note that the spool has all letters now."""
        self._fresh.clear()

    def __len__(self) -> int:
        return len(self._names)

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert len(self._names) <= MOST, "more letters than are kept"

    def _read(self, task: TaskId) -> DeadLetter:
        return _decode(self._fresh.get(task) or self.shelf.read(TABLE, task)).letter


def _next(letter: DeadLetter) -> Task:
    return msgspec.structs.replace(letter.task, generation=letter.task.generation + 1)
