"""One scan, and all that it is reconstructed with: from settings to frames, state and plan of the engines."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.context import Alone, Context, Team
from cluster_side.modalities.ptychography import datasets, probes
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.backend import Backend
from cluster_side.modalities.ptychography.engines.bounds import Bounds
from cluster_side.modalities.ptychography.engines.propagators import Propagator, far_field, near_field
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState, members
from cluster_side.modalities.ptychography.recipe import RecipeStep, parse
from cluster_side.modalities.ptychography.scan import PtychographyScan
from cluster_side.modalities.ptychography.spec import PtychographySettings

Made = TypeVar("Made")


@dataclass(slots=True)
class Means:
    """The settings, backend and context that any scan is reconstructed with."""

    settings: PtychographySettings
    context: Context
    backend: Backend
    previous: NDArray[np.complexfloating[Any, Any]] | None


@dataclass(frozen=True, slots=True)
class FirstProbe:
    """A probe (1, h, w), and the defocus that it came from, in pixel² of the object."""

    probe: NDArray[np.complex64]
    defocus: float


@dataclass(slots=True)
class Reconstruction:
    """One scan, and all that it is reconstructed with."""

    means: Means
    scan: PtychographyScan
    shown: float = 0.0
    """The progress that was reported before it began."""
    first: FirstProbe | None = None
    """What was found by trying (`start.look_for_probe`), where none is known."""
    alone: bool = False
    """Whether this rank has all frames that it is asked about, and computes without the others (`gathered`)."""

    @property
    def team(self) -> Team:
        """The ranks that compute together."""
        return Alone() if self.alone else self.means.context.team

    def gathered(self, which: NDArray[np.int64]) -> "Reconstruction":
        """Return the job with all frames of these known positions (sorted) on every rank, each of which then works alone."""
        prepared, rows = self.scan.prepared, self.scan.known[which]
        if self.alone or self.team.size == 1:
            return replace(self, alone=True)
        own = members(rows, prepared.total, self.team.rank, self.team.size).own
        counts = np.zeros((len(rows), *prepared.counts.shape[1:]), np.float32)
        counts[np.searchsorted(rows, own)] = prepared.of(own)
        self.team.add_up([counts])
        return replace(self, scan=replace(self.scan, prepared=replace(prepared, counts=counts, rows=rows)), alone=True)

    def solve(self, which: NDArray[np.int64], *, live: bool) -> tuple[ReconstructionState, NDArray[np.float64]]:
        """Reconstruct from these of the known positions; return the state, and where they are now, in their order."""
        return self.fitting(lambda: self._solve(which, live=live))

    def fitting(self, do: Callable[[], Made]) -> Made:
        """Return the result. A GPU without room for a block of positions gets smaller ones, which do not change the result."""
        means, shape = self.means, self.scan.probe_shape
        while True:
            try:
                return do()
            except MemoryError as error:
                smaller = means.backend.smaller(8 * int(np.prod(shape)) * means.settings.modes)
                if smaller is None:
                    raise BadInput(
                        f"not even one position of {shape} pixels and {means.settings.modes} modes fits into the "
                        f"memory of the {means.backend.name} device ({error}); use fewer modes, a smaller crop, or more ranks"
                    ) from error
                means.context.note(f"out of memory: blocks of {smaller.block_bytes >> 20} MiB from here on")
                means.backend = smaller

    def bench(self) -> Bench:
        """Return what the engines work with."""
        return Bench(self.means.backend, self._propagator(), self.team)

    def _solve(self, which: NDArray[np.int64], *, live: bool) -> tuple[ReconstructionState, NDArray[np.float64]]:
        bench, means = self.bench(), self.means
        team, plan = bench.team, self.plan()
        frames, state = self.begin(bench, which)
        last = sum(stage.iterations for stage in plan.stages)

        def tell(done: int) -> bool:
            if live and team.rank == 0:
                picture = datasets.picture(self.scan, means.backend, state) if done % means.settings.every == 0 else {}
                means.context.tell(picture, self.shown + (1 - self.shown) * done / last)
            return False

        run.run(bench, frames, state, plan, tell)
        return state, self.now(which, frames, state)

    def now(self, which: NDArray[np.int64], frames: Frames, state: ReconstructionState) -> NDArray[np.float64]:
        """Return where these known positions (n, 2) are now, on all ranks."""
        found = np.zeros((len(which), 2))
        found[np.searchsorted(self.scan.known[which], frames.members.own)] = state.positions
        self.team.add_up([found])
        return found

    def begin(self, bench: Bench, which: NDArray[np.int64], probe: Any = None) -> tuple[Frames, ReconstructionState]:
        """Return this rank's frames of these known positions, and the state before the first iteration.

        `probe` (modes, h, w) is what to begin with; None: what the settings say.
        """
        scan, backend, settings, team = self.scan, self.means.backend, self.means.settings, bench.team
        ours, good = members(scan.known[which], scan.prepared.total, team.rank, team.size), scan.prepared.good
        counts, pixels = scan.prepared.of(ours.own), scan.pixels[np.searchsorted(scan.known, ours.own)]
        total = counts.sum(axis=0, dtype=np.float64)
        team.add_up([total])
        probe = self._probe((total / len(which)).astype(np.float32)) if probe is None else backend.to_host(probe)
        amplitudes = backend.array(np.sqrt(counts * np.float32(bench.propagator.gain)))
        masked = None if good.all() else backend.array(good.astype(np.float32))
        frames = Frames(amplitudes, masked, float(total.sum()) * bench.propagator.gain, ours, settings.upsample)
        state = ReconstructionState(
            backend.array(np.ones(scan.shape, np.complex64)),
            backend.array(np.array(probe)),
            pixels,
            pixels.copy(),
            backend.array(np.ones(len(pixels))) if settings.refine.flux else None,
            backend.array(np.zeros(good.shape)) if settings.refine.background else None,
        )
        return frames, state

    def mean(self, which: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the mean frame of these known positions, over all ranks."""
        team = self.team
        ours = members(self.scan.known[which], self.scan.prepared.total, team.rank, team.size)
        total = self.scan.prepared.of(ours.own).sum(axis=0, dtype=np.float64)
        team.add_up([total])
        return np.asarray(total / len(which), np.float32)

    @property
    def between(self) -> bool:
        """Whether probes stand between pixels."""
        settings = self.means.settings
        return settings.subpixel or settings.refine.positions_after is not None

    def _probe(self, mean: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the starting modes, with the power of the mean frame."""
        settings, shape = self.means.settings, self.scan.probe_shape
        if settings.probe.kind == "former":
            if self.means.previous is None:
                raise BadInput(
                    "probe former needs the calibration file 'probe': a former result, or an array saved by numpy.save"
                )
            if self.means.previous.shape[-2:] != shape:
                raise BadInput(
                    f"probe: the former one has {self.means.previous.shape[-2:]} pixels, this scan's array {shape}; "
                    "choose the crop that it was made with"
                )
            return probes.modes(self.means.previous, settings.modes, float(mean.sum()))
        if self.first is not None:
            return probes.modes(self.first.probe, settings.modes, float(mean.sum()))
        first = probes.first_probe(settings.probe, probes.spread(mean, settings.upsample), self.scan.geometry, self.scan.pixel)
        return probes.modes(first, settings.modes, float(mean.sum()))

    def _propagator(self) -> Propagator:
        geometry, shape = self.scan.geometry, self.scan.probe_shape
        if geometry.source is None:
            return far_field(self.means.backend, shape)
        number = geometry.fresnel_number(self.scan.pixel * self.means.settings.rebin)
        return near_field(self.means.backend, shape, (number, number))

    def plan(self) -> run.Plan:
        """Return the plan of the engines for these settings."""
        settings = self.means.settings
        lit = known = None
        if settings.probe_radius is not None:
            lit = self.means.backend.array(probes.disc(self.scan.probe_shape, settings.probe_radius))
        if settings.object_radius is not None:
            known = self.means.backend.array(self.scan.near(settings.object_radius))
        limits = Bounds(settings.amplitude, object_support=known, probe_support=lit, probe_power=settings.probe_power)
        after, bound = settings.refine.positions_after, settings.refine.positions_bound
        return run.Plan(parse(settings.recipe), limits, settings.probe_after, after, bound, settings.subpixel)

    def plan_of(self, stages: tuple[RecipeStep, ...]) -> run.Plan:
        """Return what the settings want, with other stages, and with positions that stay where they are."""
        return replace(self.plan(), stages=stages, move_after=None, subpixel=self.between)
