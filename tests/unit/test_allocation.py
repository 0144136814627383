"""What a job makes of what the batch system gave it: name, room, end, CPUs; and that both sides call a job the same."""

import pytest

from cluster_side.scaling.launchers.base import job_key
from cluster_side.worker.job.allocation import NodeResources, SlotNeeds, job_name, pins, room, seconds_left, skew

NODE = NodeResources(32, frozenset(range(32)), 128_000)


@pytest.mark.parametrize(
    ("environment", "id_", "restarts"),
    [
        ({"SLURM_JOB_ID": "17"}, "17", 0),
        ({"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}, "17_2;maxwell", 0),
        ({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "3"}, "17", 3),
        ({"BEAMTIDE_JOB": "us.1-1.1.xrf-0"}, "us.1-1.1.xrf-0", 0),
        ({"BEAMTIDE_JOB": "us.1-1.1.xrf-0", "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}, "us.1-1.1.xrf-0", 0),
    ],
)
def test_the_worker_and_the_autoscaler_call_a_job_the_same(environment: dict[str, str], id_: str, restarts: int) -> None:
    assert job_name(environment, "here-1") == job_key(id_, restarts)


def test_a_job_of_nobody_has_a_name_too() -> None:
    assert job_name({"SLURM_RESTART_COUNT": "3"}, "here-1") == "here-1"


@pytest.mark.parametrize(
    ("environment", "needs", "expected"),
    [
        ({}, SlotNeeds(), 3),
        ({"SLURM_CPUS_ON_NODE": "32"}, SlotNeeds(memory_mb=2000), 32),
        ({"SLURM_CPUS_ON_NODE": "32"}, SlotNeeds(memory_mb=16_000), 8),
        ({"SLURM_CPUS_ON_NODE": "32", "SLURM_MEM_PER_NODE": "8000"}, SlotNeeds(2, 2000), 4),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "1000"}, SlotNeeds(1, 2000), 2),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_GPUS_ON_NODE": "2"}, SlotNeeds(gpus=1), 2),
        ({"SLURM_CPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1,3"}, SlotNeeds(gpus=1), 3),
        ({"SLURM_CPUS_ON_NODE": "1"}, SlotNeeds(4, 2000), 1),
        ({"SLURM_CPUS_ON_NODE": "many"}, SlotNeeds(), 3),
    ],
)
def test_as_many_workers_as_fit(environment: dict[str, str], needs: SlotNeeds, expected: int) -> None:
    assert room(environment, 3, needs, NODE) == expected


def test_the_sooner_end_counts_and_a_clock_that_is_wrong_is_told() -> None:
    assert seconds_left({}, 0.0, 1000.0) is None
    assert seconds_left({}, 600.0, 1000.0) == 600.0
    assert seconds_left({"SLURM_JOB_END_TIME": "1300"}, 600.0, 1000.0) == 300.0
    assert seconds_left({"SLURM_JOB_END_TIME": "9000"}, 600.0, 1000.0) == 600.0
    assert skew({"SLURM_JOB_START_TIME": "1000"}, 999.0) == ""
    assert "is 500 s behind the batch system's" in skew({"SLURM_JOB_START_TIME": "1500"}, 1000.0)


def test_workers_are_pinned_only_where_nobody_else_is() -> None:
    bound = NodeResources(32, frozenset({4, 5, 6, 7}), 1)
    assert pins(2, 2, bound, whole_node=False) == (frozenset({4, 5}), frozenset({6, 7}))
    assert pins(3, 2, bound, whole_node=False) == ()
    assert pins(2, 2, NODE, whole_node=False) == ()
    assert pins(2, 1, NODE, whole_node=True) == (frozenset({0}), frozenset({1}))
