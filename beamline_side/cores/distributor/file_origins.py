"""Where files were put when tasks were made of them, so that a source that restarts puts no other file there.

Theory: what belongs where is decided by the source, from what the files hold at that moment. A file may shrink, vanish or get
another name while the source is down, and then the same rules say something else. So the decision is kept with the tasks, in the
same commit, and a source asks for it before it plans. Files of a product stand in pages, newest last; a file that many tasks are
made of stands on the page where it stood first, as long as that is the last page, and else again on a later one. Only files that
a source looked at are kept (they have a stamp), and only until it says that it makes no more tasks of them.

No clock. Invariant: what a file's first entry says of its origin, all say.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.tasks import FileOrigin, ForgetOriginsRequest, Origins, OriginsRequest, Task

TABLE = "origin"
PAGE = 256
"""Files."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[FileOrigin]).decode


@dataclass(slots=True)
class FileOrigins:
    """The files of all products of which more tasks may be made."""

    shelf: Shelf
    _last: dict[str, int] = field(default_factory=dict)
    """The last page of a product."""

    def add(self, tasks: Iterable[Task]) -> list[Effect]:
        """Add the files of new tasks; return the rows to keep."""
        pages: dict[tuple[str, int], dict[str, FileOrigin]] = {}
        for task in tasks:
            product = _name(task.scan, task.pipeline, task.settings)
            for one in _files(task):
                number = self._last_page(product)
                page = pages.setdefault((product, number), {file.path: file for file in self._page(product, number)})
                if one.path not in page and len(page) >= PAGE:
                    number = self._last[product] = number + 1
                    page = pages.setdefault((product, number), {})
                page[one.path] = _joined(page[one.path], one) if one.path in page else one
        return [Keep(TABLE, _key(*key), _encode(list(page.values()))) for key, page in pages.items()]

    def answer(self, question: OriginsRequest) -> Origins:
        """Return a page."""
        product = _name(question.scan, question.pipeline, question.settings)
        return Origins(files=tuple(self._page(product, question.page)), more=question.page < self._last_page(product))

    def forget(self, wish: ForgetOriginsRequest) -> list[Effect]:
        """Forget a product."""
        product = _name(wish.scan, wish.pipeline, wish.settings)
        last = self._last_page(product)
        del self._last[product]
        return [Forget(TABLE, _key(product, number)) for number in range(last + 1) if self._page(product, number)]

    def _last_page(self, product: str) -> int:
        if product not in self._last:
            self._last[product] = 0
            while self._page(product, self._last[product] + 1):
                self._last[product] += 1
        return self._last[product]

    def _page(self, product: str, number: int) -> list[FileOrigin]:
        try:
            return _decode(self.shelf.read(TABLE, _key(product, number)))
        except KeyError:
            return []


def _files(task: Task) -> Iterator[FileOrigin]:
    at = task.start
    for part in task.inputs:
        where = FileOrigin(
            path=part.path, origin=at - part.first, first=part.first, last=part.last, options=part.options, was=part.was
        )
        if part.was is not None:
            yield where
        at += part.last - part.first


def _joined(one: FileOrigin, other: FileOrigin) -> FileOrigin:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return msgspec.structs.replace(one, first=first, last=last, was=other.was or one.was)


def _name(*product: str) -> str:
    return "/".join(product)


def _key(product: str, number: int) -> str:
    return f"{product}/{number:06d}"
