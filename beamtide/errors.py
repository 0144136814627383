"""The errors of this project.

`WireError`: a peer sent an invalid message; it is counted, answered if possible, and otherwise ignored.
`BadInput`: a person gave something that cannot be used; one sentence, exit code 2, nothing half started.
`Broken`: an invariant of ours is broken, or the disk failed; the process stops, and a restart continues from the disk.
"""


class BeamtideError(Exception):
    """The root of all errors of this project; its text is one sentence: what, where, what to do."""


class WireError(BeamtideError):
    """A peer sent something that is not a message of ours."""


class UnknownKind(WireError):
    """A well-formed message of a kind that this version does not know."""

    def __init__(self, kind: str, message_id: int) -> None:
        super().__init__(f"unknown message kind {kind!r}")
        self.kind = kind
        self.message_id = message_id


class BadInput(BeamtideError):
    """A file, a setting or a command line cannot be used; the text says where and what to do."""


class Broken(BeamtideError):
    """An invariant of ours is broken, or the disk failed: stop (exit code 75); a restart continues from the disk."""


class NoAnswer(BeamtideError):
    """A service did not answer in time."""


class Busy(NoAnswer):
    """A service answered that it has no room until our patience was over: it is alive, and the request may be sent again."""
