"""Reports of the autoscaler for people: messages from its state, and sentences from messages. Pure."""

from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import JobReport, Jobs, PipelineReport
from cluster_side.scaling.jobs.states import WORKING, Job, JobState
from cluster_side.scaling.policy.pipeline import PipelineState
from cluster_side.scaling.policy.planner import Planner


def jobs(planner: Planner, now: float) -> Jobs:
    """Return all jobs and pipelines that the autoscaler knows."""
    ledger = planner.ledger
    known = [_job(job, now) for job in ledger.jobs.values()]
    asked = [
        JobReport(
            id=order.token,
            pipeline=PipelineName(order.pipeline),
            state=JobState.ASKED.value,
            age=now - order.asked,
            reason=f"{order.count} jobs" + (", fate unclear" if order.unclear else ""),
            slots=order.slots,
        )
        for order in ledger.unanswered()
    ]
    return Jobs(
        launcher=planner.launcher,
        pipelines=tuple(_pipeline(planner, pipeline) for pipeline in planner.pipelines.values()),
        jobs=(*known, *asked),
        cap=planner.learned.room(planner.caps.jobs, now),
        node_hours=planner.budget.spent(),
        node_hours_per_day=planner.budget.node_hours_per_day,
        trouble="" if ledger.known else ledger.trouble or "the batch system was not seen yet",
        avoided=planner.nodes.avoided(now),
    )


def _pipeline(planner: Planner, pipeline: PipelineState) -> PipelineReport:
    states = [job.state for job in planner.ledger.of(pipeline.name)]
    unanswered = sum(order.count for order in planner.ledger.unanswered(pipeline.name))
    return PipelineReport(
        pipeline=PipelineName(pipeline.name),
        want=pipeline.want,
        pending=sum(state in (JobState.ASKED, JobState.PENDING) for state in states) + unanswered,
        starting=states.count(JobState.STARTING),
        working=sum(state in WORKING for state in states),
        because=pipeline.because,
        cold_start=pipeline.cold_start(),
        service_time=pipeline.service_time,
        most=-1 if pipeline.most is None else pipeline.most,
        paused=pipeline.paused,
        stages=pipeline.usual_stages(),
    )


def _job(job: Job, now: float) -> JobReport:
    return JobReport(
        id=job.id,
        pipeline=PipelineName(job.order.pipeline),
        state=job.state.value,
        age=now - job.order.asked,
        reason=job.sighting.reason,
        nodes=job.sighting.nodes,
        expected_start=job.sighting.expected_start or 0.0,
        slots=job.workers or job.order.slots,
    )
