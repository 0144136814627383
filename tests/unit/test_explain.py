"""What `beamtide explain` says of a scan: one line per pipeline and job, with the reasons of those who know."""

from dataclasses import replace

from beamtide.cli.explain import MOST_JOBS, lines
from beamtide.cli.screen import remarks_of
from beamtide.client.snapshot import PipelineRow, Snapshot
from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import JobReport, Jobs, PipelineReport

XRF = PipelineName("xrf")


def row(done: int = 3, total: int = 40, abandoned: int = 0) -> PipelineRow:
    queued = total - done - abandoned
    states = {"not_asked": 0, "queued": queued, "running": 0, "retrying": 0, "done": done, "empty": 0, "abandoned": abandoned}
    return PipelineRow(**states, total=total, workers=1, rate=1.0, oldest=0.0, to_go=30.0, retried=0, doubled=0)


def told(*jobs: JobReport, trouble: str = "") -> Jobs:
    pipeline = PipelineReport(
        pipeline=XRF, want=40, pending=len(jobs) - 1, starting=0, working=1, because="37 ready", cold_start=3.0, service_time=2.0
    )
    return Jobs(launcher="x", pipelines=(pipeline,), jobs=jobs, cap=80, node_hours=1.0, node_hours_per_day=9.0, trouble=trouble)


def job(number: int, state: str = "pending", reason: str = "Resources") -> JobReport:
    return JobReport(id=f"12_{number}", pipeline=XRF, state=state, age=5.0, reason=reason, expected_start=1.7e9)


def test_a_pipeline_that_waits_for_the_batch_system() -> None:
    said = lines(Snapshot("s", {"xrf": row()}, "", {}), told(job(0, "busy", ""), job(1)), [])
    assert said[1].startswith(
        "xrf       40 tasks: 37 queued, 3 done. 1 of 2 jobs work; 1 wait: the batch system says Resources, first start expected"
    )
    assert said[1].endswith("37 ready. About 30 s to go.")
    assert "job 12_1 pending for 5.0 s: Resources, expected to start 2023-11-1" in said[3]


def test_many_jobs_are_counted() -> None:
    said = lines(Snapshot("s", {"xrf": row()}, "", {}), told(*(job(number) for number in range(MOST_JOBS + 1))), [])
    assert said[2].strip() == f"{MOST_JOBS + 1} jobs pending: Resources"


def test_fences_holes_and_silence_are_told() -> None:
    notes = {"buffer.xrf": "37 tasks wait for a fence: positions complete to index 1411 of 2000", "sink": "its disk is full"}
    said = lines(
        Snapshot("s", {"xrf": row(), "xrd": row(38, abandoned=2)}, "", notes), None, [], "the autoscaler does not answer"
    )
    assert "37 tasks wait for a fence: positions complete to index 1411 of 2000." in said[1]
    assert said[2] == "xrd       finished. 40 tasks: 38 done, 2 abandoned."
    assert said[3:] == ["sink      its disk is full", "jobs      the autoscaler does not answer"]


def test_a_reconstruction_that_did_not_converge_is_told() -> None:
    quality = "did not converge: try flip: [-1, 1]"
    shot = Snapshot("s", {"ptycho": replace(row(1, 1), quality=quality)}, "", {})
    assert lines(shot, None, [])[1] == "ptycho    finished. 1 tasks: 1 done. Did not converge: try flip: [-1, 1]."
    assert remarks_of(shot) == [f"ptycho: {quality}"], "what `beamtide run` says at the end"


def test_a_bad_picture_is_told() -> None:
    assert lines(Snapshot("s", {}, "", {}), told(trouble="squeue: timed out"), [])[-1] == "jobs      squeue: timed out"
