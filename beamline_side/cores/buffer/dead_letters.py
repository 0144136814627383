"""Dead letters: what is kept of tasks that were given up, until somebody retries or drops them.

Theory: a letter is a row of the spool; in memory are names only, oldest first. A list is made of what the spool holds, in
pieces of a few megabytes. The newest `MOST` are kept: whoever has more than that has one problem, not ten thousand.
A retry takes the letter and gives the task back with its next generation and its number of attempts, so that whatever an old
attempt still says is stale. Asking twice for the same changes nothing the second time.

No clock. Invariant: names and rows are the same.
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
    """A letter, and the how-manieth it is."""

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
        """Keep a letter; the oldest goes when there are too many."""
        name = letter.task.id
        self._names.pop(name, None)
        self._names[name] = letter.task.scan
        self._last += 1
        body = self._fresh[name] = _encode(DeadLetterRow(self._last, letter))
        oldest = [next(iter(self._names))] if len(self._names) > MOST else []
        return [Keep(TABLE, name, body), *self.drop(oldest)]

    def drop(self, tasks: Iterable[TaskId]) -> list[Effect]:
        """Forget letters."""
        known = [task for task in tasks if task in self._names]
        for task in known:
            del self._names[task]
            self._fresh.pop(task, None)
        return [Forget(TABLE, task) for task in known]

    def take(self, tasks: Iterable[TaskId]) -> tuple[list[DeadLetter], list[Effect]]:
        """Return letters whose tasks are to run anew, in their next generation, and what forgets them."""
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
        """Note that the shelf has all letters now."""
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
