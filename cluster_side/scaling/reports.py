"""What the autoscaler tells people: messages from its state, and sentences from messages. Pure."""

from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import CrewReport, JobReport, Jobs
from cluster_side.scaling.jobs.states import WORKING, Job, State
from cluster_side.scaling.policy.pipeline import Crew
from cluster_side.scaling.policy.planner import Steering


def jobs(steering: Steering, now: float) -> Jobs:
    """Return everything that the autoscaler knows."""
    ledger = steering.ledger
    known = [_job(job, now) for job in ledger.jobs.values()]
    asked = [
        JobReport(
            id=order.token,
            pipeline=PipelineName(order.pipeline),
            state=State.ASKED.value,
            age=now - order.asked,
            reason=f"{order.count} jobs" + (", fate unclear" if order.unclear else ""),
            slots=order.slots,
        )
        for order in ledger.unanswered()
    ]
    return Jobs(
        launcher=steering.launcher,
        crews=tuple(_crew(steering, crew) for crew in steering.crews.values()),
        jobs=(*known, *asked),
        cap=steering.learned.room(steering.caps.jobs, now),
        node_hours=steering.budget.spent(),
        node_hours_per_day=steering.budget.node_hours_per_day,
        trouble="" if ledger.known else ledger.trouble or "the batch system was not seen yet",
        avoided=steering.nodes.avoided(now),
    )


def _crew(steering: Steering, crew: Crew) -> CrewReport:
    states = [job.state for job in steering.ledger.of(crew.name)]
    unanswered = sum(order.count for order in steering.ledger.unanswered(crew.name))
    return CrewReport(
        pipeline=PipelineName(crew.name),
        want=crew.want,
        pending=sum(state in (State.ASKED, State.PENDING) for state in states) + unanswered,
        starting=states.count(State.STARTING),
        working=sum(state in WORKING for state in states),
        because=crew.because,
        cold_start=crew.cold_start(),
        service_time=crew.service_time,
        most=-1 if crew.most is None else crew.most,
        paused=crew.paused,
        stages=crew.usual_stages(),
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
