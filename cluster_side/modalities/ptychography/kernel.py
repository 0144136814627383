"""Ptychography, heavy half: the frames and positions of a scan become object and probe, and what is to be thought of them.

Alone or as one rank of a team. The result is complete on every rank; the worker stores that of rank 0.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.context import ALONE, Context
from cluster_side.modalities.ptychography import live
from cluster_side.modalities.ptychography.datasets import agreement, reconstructed
from cluster_side.modalities.ptychography.engines import backend
from cluster_side.modalities.ptychography.probe_file import previous_probe
from cluster_side.modalities.ptychography.reconstruction import Means, Reconstruction
from cluster_side.modalities.ptychography.scan import scan_of
from cluster_side.modalities.ptychography.spec import LIVE, PtychographySettings
from cluster_side.modalities.ptychography.start import look_for_probe
from cluster_side.modalities.ptychography.verdict import judged, judgement_on

Datasets = dict[str, NDArray[Any]]
TeamKernel = Callable[[Mapping[str, NDArray[Any]], Context], Datasets]


def load(settings: PtychographySettings, calibration: Mapping[str, pathlib.Path]) -> TeamKernel:
    """Return the function that reconstructs a scan with these settings."""
    mask = calibration.get("mask")

    def kernel(given: Mapping[str, NDArray[Any]], context: Context = ALONE) -> Datasets:
        previous = previous_probe(calibration["probe"]) if "probe" in calibration else None
        means, datasets = Means(settings, context, backend.backend(settings.device, context.local_rank), previous), {}
        if context.feed is not None:
            given, seen = live.follow(given, means, context.feed, mask)
            datasets = {} if seen is None else judged(judgement_on(*seen), LIVE)
        job = Reconstruction(
            means, scan_of(given, settings, mask, context.team), shown=live.SHARE if context.feed is not None else 0.0
        )
        every = np.arange(len(job.scan.known))
        look_for_probe(job)
        state, now = job.solve(every, live=True)
        datasets |= reconstructed(job.scan, means.backend, state, now)
        datasets |= judged(judgement_on(job, state, now))
        if settings.frc:
            order = np.random.Generator(np.random.PCG64(0)).permutation(every)
            halves = [job.solve(np.sort(order[first::2]), live=False)[0].object for first in (0, 1)]
            datasets |= agreement(job.scan, *(np.asarray(means.backend.to_host(half)) for half in halves))
        return datasets

    return kernel
