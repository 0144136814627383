"""Which messages each role may send: a table. Pure.

Theory: a key has one role. A component may send everything, a worker what one task needs, a user what controls scans and tasks,
and a viewer only requests that change nothing. A kind of message that is in no row is for components only; a test checks that
every kind was considered.
"""

from typing import Literal, get_args

from beamtide.messages import Message, dead_letters, fences, metadata, previews, results, scaling, tasks, topology

Role = Literal["component", "worker", "user", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)

READS: frozenset[type[Message]] = frozenset(
    {
        tasks.StatusRequest,
        tasks.WatchTasksRequest,
        dead_letters.DeadListRequest,
        metadata.ScansRequest,
        metadata.GetSettingsRequest,
        metadata.GetFileRequest,
        metadata.ListSettingsRequest,
        results.ListRequest,
        results.WatchRequest,
        results.FetchRequest,
        results.ResultsRequest,
        previews.PreviewRequest,
        scaling.GaugeRequest,
        scaling.JobsRequest,
        topology.TopologyRequest,
    }
)
"""Requests that change nothing; for every key."""

CONTROLS: frozenset[type[Message]] = frozenset(
    {
        tasks.SubmitRequest,
        tasks.CancelRequest,
        dead_letters.RetryRequest,
        dead_letters.DropRequest,
        metadata.ScanAnnounced,
        metadata.ScanStarted,
        metadata.ScanEnded,
        metadata.ReprocessRequest,
        metadata.PutSettingsRequest,
        metadata.PutFileRequest,
        scaling.ScaleRequest,
    }
)
"""Messages that start, end or change work; for users."""

WORKS: frozenset[type[Message]] = frozenset(
    {
        tasks.LeaseRequest,
        tasks.Beat,
        tasks.TaskDone,
        tasks.TaskFailed,
        results.StoreRequest,
        results.RoomRequest,
        previews.PreviewTold,
        fences.FenceRequest,
    }
)
"""Messages that one task needs; for workers."""

MAY: dict[Role, frozenset[type[Message]]] = {"worker": WORKS | READS, "user": CONTROLS | READS, "viewer": READS}


def may(role: Role, message: type[Message]) -> bool:
    """Whether a key of this role may send that message."""
    return role == "component" or message in MAY[role]
