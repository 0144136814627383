"""Who may say what: every kind of message has been thought of, and every role is held to its row."""

import pytest

from beamtide.messages import KINDS, Message
from beamtide.security.roles import CONTROLS, MAY, READS, ROLES, WORKS, Role, may

AMONG_COMPONENTS = {
    *("PullRequest", "CrewRequest", "Release", "ReleaseHeld", "Filed", "Hello", "Heartbeat"),
    *("OriginsRequest", "ForgetOriginsRequest"),
}
"""What only components ask each other."""
ANSWERS = {
    *("Ok", "Refused", "Unsupported", "TaskStatus", "Pulled", "Lease", "NoTask", "Stale", "DeadLetters", "Origins"),
    *("FenceReached", "FenceBroken", "FencePending", "Scans", "Put", "Settings", "File", "SettingsList"),
    *(
        "StoredBefore",
        "NotHeld",
        "Released",
        "Products",
        "Fetched",
        "Results",
        "Preview",
        "BufferGauge",
        "SorterGauge",
        "Jobs",
        "Unregistered",
        "Topology",
    ),
}
"""What a service says, and never hears from anybody but a service."""
ROWS = (READS, CONTROLS, WORKS)


def test_every_kind_of_message_stands_in_one_row() -> None:
    named = [kind.__name__ for row in ROWS for kind in row]
    assert sorted([*named, *AMONG_COMPONENTS, *ANSWERS]) == sorted(KINDS)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_role_and_every_kind(role: Role, kind: type[Message]) -> None:
    rows = {
        "component": True,
        "worker": kind in WORKS or kind in READS,
        "user": kind in CONTROLS or kind in READS,
        "viewer": kind in READS,
    }
    assert may(role, kind) is rows[role]


def test_a_viewer_changes_nothing_and_a_worker_steers_nothing() -> None:
    assert MAY["viewer"].isdisjoint(CONTROLS | WORKS)
    assert MAY["worker"].isdisjoint(CONTROLS)
    assert MAY["user"].isdisjoint(WORKS)
