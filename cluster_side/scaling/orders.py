"""From a decision to an order: the exact command of a pipeline's jobs, and their resources. Pure."""

from beamtide.config.models import Deployment, PipelineConfig
from cluster_side.scaling.jobs.batch_calls import Start
from cluster_side.scaling.launchers.base import JobOrder, JobShape, Launcher, job_name


def order_for(deployment: Deployment, launcher: Launcher, start: Start) -> JobOrder:
    """Return the order for a decision."""
    pipeline = deployment.pipelines[start.order.pipeline]
    job, scaling = pipeline.job, deployment.site.scaling
    argv = (*launcher.beamtide, "work", "-c", str(deployment.file), "--pipeline", pipeline.pipeline)
    argv += ("--slots", str(job.slots), "--tasks", str(start.tasks), "--idle-exit", f"{scaling.idle_exit:g}")
    argv += ("--walltime", str(start.walltime), "--memory", str(job.memory_per_slot), "--cpus", str(job.cpus_per_slot))
    argv += ("--gpus", str(job.gpus_per_slot)) if job.gpus_per_slot else ()
    return JobOrder(
        pipeline=pipeline.pipeline,
        modality=pipeline.modality,
        token=start.order.token,
        count=start.order.count,
        slots=job.slots,
        tasks=start.tasks,
        shape=shape_of(pipeline, start.walltime),
        name=job_name(deployment, pipeline.pipeline),
        argv=argv,
        logs=deployment.site.state / "logs",
        env=threads(job.cpus_per_slot),
        exclude=start.exclude,
    )


def shape_of(pipeline: PipelineConfig, walltime: int) -> JobShape:
    """Return the resources of one job."""
    job = pipeline.job
    return JobShape(
        cpus=job.cpus,
        memory_mb=job.slots * job.memory_per_slot,
        gpus=job.slots * job.gpus_per_slot,
        nodes=job.nodes,
        ranks=job.ranks,
        walltime_s=walltime,
    )


def threads(cpus: int) -> dict[str, str]:
    """Return the environment that keeps libraries to the CPUs of one worker: parallelism is the number of workers."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cpus))


def cost_of(pipeline: PipelineConfig, launcher: Launcher) -> float:
    """Return the nodes that one job takes: whole ones, or its share where jobs share a node."""
    if not launcher.cpus_per_node:
        return float(pipeline.job.nodes)
    return pipeline.job.nodes * min(1.0, pipeline.job.cpus / launcher.cpus_per_node)
