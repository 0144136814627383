"""The messages between the two sides: frozen structs without behaviour, one file per subject.

Facts are past participles (`ScanEnded`), wishes end in `Request`, measurements are nouns (`BufferGauge`).
A struct travels as a msgpack array, so **fields are only ever added at the end, with a default**: an older peer
ignores what it does not know, a newer one fills in what is missing. `KINDS` names every message on the wire.
"""

from beamtide.messages import dead_letters, fences, metadata, previews, results, scaling, tasks, topology
from beamtide.messages.base import Message, Ok, Refused, Unsupported, kind_of

KINDS: dict[str, type[Message]] = {kind_of(kind): kind for kind in Message.__subclasses__()}
"""Every message, by the name under which it travels."""

__all__ = [
    "KINDS",
    "Message",
    "Ok",
    "Refused",
    "Unsupported",
    "dead_letters",
    "fences",
    "metadata",
    "previews",
    "results",
    "scaling",
    "tasks",
    "topology",
]
