"""What each role may say: a table. Pure.

Theory: a key has one role. A component may say everything, a worker what one task needs, a user what controls scans and tasks,
and a viewer only what reads. A kind of message that stands in no row is for components alone; a test looks that every kind was
thought of.
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
"""Changes nothing; everybody with a key may ask."""

CONTROLS: frozenset[type[Message]] = frozenset(
    {
        tasks.SubmitRequest,
        tasks.CancelRequest,
        dead_letters.RetryRequest,
        dead_letters.DropRequest,
        metadata.ScanAnnounced,
        metadata.ScanStarted,
        metadata.ScanEnded,
        metadata.PutSettingsRequest,
        metadata.PutFileRequest,
        scaling.ScaleRequest,
    }
)
"""Starts, ends or changes work; for users."""

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
"""What one task needs; for workers."""

MAY: dict[Role, frozenset[type[Message]]] = {"worker": WORKS | READS, "user": CONTROLS | READS, "viewer": READS}


def may(role: Role, message: type[Message]) -> bool:
    """Whether a key of this role may say that."""
    return role == "component" or message in MAY[role]
