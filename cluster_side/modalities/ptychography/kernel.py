"""Ptychography, heavy half: the frames and positions of a scan become object and probe.

Alone or as one rank of a team. What it gives back is complete on every rank; the worker stores that of rank 0.
"""

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.company import ALONE, Company
from cluster_side.modalities.ptychography import answer, arrays, probes, reconstruct
from cluster_side.modalities.ptychography.constraints import Limits
from cluster_side.modalities.ptychography.former import former_probe
from cluster_side.modalities.ptychography.propagators import Propagator, far_field, near_field
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.scan import Scan, scan_of
from cluster_side.modalities.ptychography.spec import PtychographySettings
from cluster_side.modalities.ptychography.state import Bench, Frames, State, members

Datasets = dict[str, NDArray[Any]]
TeamKernel = Callable[[Mapping[str, NDArray[Any]], Company], Datasets]


def load(settings: PtychographySettings, calibration: Mapping[str, pathlib.Path]) -> TeamKernel:
    """Return the function that reconstructs a scan with these settings."""

    def kernel(given: Mapping[str, NDArray[Any]], company: Company = ALONE) -> Datasets:
        scan = scan_of(given, settings, calibration.get("mask"))
        former = former_probe(calibration["probe"]) if "probe" in calibration else None
        job = Job(settings, scan, company, arrays.backend(settings.device, company.local_rank), former)
        every = np.arange(len(scan.known))
        datasets = answer.datasets(scan, job.backend, *job.solve(every, live=True))
        if settings.frc:
            order = np.random.Generator(np.random.PCG64(0)).permutation(every)
            halves = [job.solve(np.sort(order[first::2]), live=False)[0].object for first in (0, 1)]
            datasets |= answer.agreement(scan, *(np.asarray(job.backend.to_host(half)) for half in halves))
        return datasets

    return kernel


@dataclass(slots=True)
class Job:
    """One scan, and all that it is reconstructed with."""

    settings: PtychographySettings
    scan: Scan
    company: Company
    backend: arrays.Backend
    former: NDArray[np.complexfloating[Any, Any]] | None

    def solve(self, which: NDArray[np.int64], *, live: bool) -> tuple[State, NDArray[np.float64]]:
        """Reconstruct from these of the known positions; return the state, and where they are now, in their order.

        A GPU without room for a block of positions gets smaller blocks; the block does not change the answer.
        """
        while True:
            try:
                return self._solve(which, live=live)
            except MemoryError as error:
                smaller = self.backend.smaller(8 * int(np.prod(self.scan.probe_shape)) * self.settings.modes)
                if smaller is None:
                    raise BadInput(
                        f"not even one position of {self.scan.probe_shape} pixels and {self.settings.modes} modes fits into the "
                        f"memory of the {self.backend.name} device ({error}); use fewer modes, a smaller crop, or more ranks"
                    ) from error
                self.company.note(f"out of memory: blocks of {smaller.block_bytes >> 20} MiB from here on")
                self.backend = smaller

    def _solve(self, which: NDArray[np.int64], *, live: bool) -> tuple[State, NDArray[np.float64]]:
        bench = Bench(self.backend, self._propagator(), self.company.team)
        team, own = bench.team, which[members(len(which), bench.team.rank, bench.team.size)]
        frames, state = self._begin(bench, which, own)
        plan = self._plan(bench)
        last = sum(stage.iterations for stage in plan.stages)

        def tell(done: int) -> None:
            if live and team.rank == 0:
                picture = answer.picture(self.scan, self.backend, state) if done % self.settings.every == 0 else {}
                self.company.tell(picture, done / last)

        reconstruct.run(bench, frames, state, plan, tell)
        now = np.empty((len(which), 2))
        now[members(len(which), 0, 1)] = team.gather_rows(state.positions, len(which))
        return state, now

    def _begin(self, bench: Bench, which: NDArray[np.int64], own: NDArray[np.int64]) -> tuple[Frames, State]:
        scan, backend, settings = self.scan, self.backend, self.settings
        good, counts = scan.prepared.good, scan.prepared.counts
        wanted = counts if len(which) == len(counts) else counts[scan.known[which]]  # all of them need no copy
        power = float(wanted.sum(dtype=np.float64)) * bench.propagator.gain
        amplitudes = backend.array(np.sqrt(counts[scan.known[own]] * np.float32(bench.propagator.gain)))
        frames = Frames(
            amplitudes, None if good.all() else backend.array(good.astype(np.float32)), power, len(which), settings.upsample
        )
        mean = wanted.mean(axis=0)
        state = State(
            backend.array(np.ones(scan.shape, np.complex64)),
            backend.array(self._probe(mean)),
            scan.pixels[own].copy(),
            scan.pixels[own].copy(),
            backend.array(np.ones(len(own))) if settings.refine.flux else None,
            backend.array(np.zeros(good.shape)) if settings.refine.background else None,
        )
        return frames, state

    def _probe(self, mean: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the starting modes, with the power of the mean frame."""
        settings, shape = self.settings, self.scan.probe_shape
        if settings.probe.kind == "former":
            if self.former is None:
                raise BadInput(
                    "probe former needs the calibration file 'probe': a former result, or an array saved by numpy.save"
                )
            if self.former.shape[-2:] != shape:
                raise BadInput(
                    f"probe: the former one has {self.former.shape[-2:]} pixels, this scan's array {shape}; "
                    "choose the crop that it was made with"
                )
            return probes.modes(self.former, settings.modes, float(mean.sum()))
        first = probes.first_probe(settings.probe, probes.spread(mean, settings.upsample), self.scan.geometry, self.scan.pixel)
        return probes.modes(first, settings.modes, float(mean.sum()))

    def _propagator(self) -> Propagator:
        geometry, shape = self.scan.geometry, self.scan.probe_shape
        if geometry.source is None:
            return far_field(self.backend, shape)
        number = geometry.fresnel_number(self.scan.pixel * self.settings.rebin)
        return near_field(self.backend, shape, (number, number))

    def _plan(self, bench: Bench) -> reconstruct.Plan:
        settings = self.settings
        lit = known = None
        if settings.probe_radius is not None:
            lit = self.backend.array(probes.disc(self.scan.probe_shape, settings.probe_radius))
        if settings.object_radius is not None:
            known = self.backend.array(self.scan.near(settings.object_radius))
        limits = Limits(settings.amplitude, object_support=known, probe_support=lit, probe_power=settings.probe_power)
        after, bound = settings.refine.positions_after, settings.refine.positions_bound
        return reconstruct.Plan(parse(settings.recipe), limits, settings.probe_after, after, bound, settings.subpixel)
