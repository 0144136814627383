"""What may go wrong, and whose fault it is.

`WireError`: they sent nonsense; it is counted, answered if possible, and survived.
`BadInput`: a person gave us something we cannot use; one sentence, exit code 2, nothing half started.
`Broken`: we broke a rule of our own, or the disk failed; the process stops and a restart replays.
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
    """A rule of our own is broken, or the disk failed: stop (exit code 75) and let a restart replay."""


class NoAnswer(BeamtideError):
    """A service did not answer in time."""


class Busy(NoAnswer):
    """A service answered that it has no room now, for as long as we were patient: it lives, and we may ask again."""
