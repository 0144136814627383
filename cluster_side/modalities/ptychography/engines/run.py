"""From amplitudes and positions to object and probe: the stages of a recipe, one after the other.

Invariant: with the same plan and the same frames the answer is the same up to rounding for any number of ranks, because batches
and order are drawn from the whole scan, and every sum that matters is taken over all ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cluster_side.modalities.ptychography.engines.bounds import Bounds, orthogonal
from cluster_side.modalities.ptychography.engines.dm_raar import Projection
from cluster_side.modalities.ptychography.engines.pie_lsqml import Batched, Rule
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState
from cluster_side.modalities.ptychography.recipe import RecipeStep

PARTS, LEAST = 8, 16
"""LSQ-ML takes the scan in about 8 batches of at least 16 positions."""
PIE_BATCH = 8
ORTHOGONAL_EVERY = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with the frames of a scan."""

    stages: tuple[RecipeStep, ...]
    limits: Bounds = Bounds()
    probe_after: int = 2
    """Iterations of the first stage before the probe may change."""
    move_after: int | None = None
    """Iterations of each LSQ-ML stage before positions may move; None: never."""
    bound: float = 4.0
    """How far a position may move, in pixels."""
    subpixel: bool = False
    """Whether LSQ-ML, ePIE and rPIE put the probe between pixels."""


Engine = Projection | Batched


def engine_for(stage: RecipeStep, bench: Bench, frames: Frames, state: ReconstructionState, plan: Plan) -> Engine:
    """Return the engine of a stage."""
    if stage.engine in ("DM", "RAAR"):
        return Projection(bench, frames, state, stage.strength)
    if stage.engine == "LSQML":
        batch = stage.batch or max(LEAST, -(-frames.total // PARTS))
        moving = (plan.move_after, plan.bound) if plan.move_after is not None else (None, 0.0)
        return Batched(bench, frames, Rule("lsq", batch, move_after=moving[0], bound=moving[1], subpixel=plan.subpixel))
    return Batched(bench, frames, Rule("pie", stage.batch or PIE_BATCH, stage.strength, subpixel=plan.subpixel))


def run(
    bench: Bench, frames: Frames, state: ReconstructionState, plan: Plan, tell: Callable[[int], bool] = lambda done: False
) -> None:
    """Do all stages; `tell` is called after each iteration with the number done, and returns whether to stop."""
    done = 0
    for stage in plan.stages:
        engine = engine_for(stage, bench, frames, state, plan)
        for _ in range(stage.iterations):
            engine.iterate(state, plan.limits, fix_probe=done < plan.probe_after)
            done += 1
            if isinstance(engine, Batched) and done % ORTHOGONAL_EVERY == 0:
                state.probe = orthogonal(bench.backend, state.probe)
            if tell(done):
                return
        state.probe = orthogonal(bench.backend, state.probe)
