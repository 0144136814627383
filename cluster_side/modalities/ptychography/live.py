"""Live reconstruction while a scan is measured: the frames so far are reconstructed and shown, and new frames are added.

Theory: the first frames get the whole recipe; then its last stage is repeated with all frames that have come meanwhile, and so
on. An engine is interrupted only by the end of the scan (the waves of DM and RAAR need their iterations). New frames start from
the object and the probe so far: the object keeps its place on the sample, and becomes larger. These reconstructions are only
previews. The result is computed from the finished scan, from the beginning, so that it does not depend on when the task began or
how fast the scan was (see docs/adr/0028).
"""

import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.context import Feed
from cluster_side.modalities.ptychography import datasets
from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.backend import Backend
from cluster_side.modalities.ptychography.engines.state import ReconstructionState, corners_of
from cluster_side.modalities.ptychography.frames import Cutter, cutter_for
from cluster_side.modalities.ptychography.reconstruction import Means, Reconstruction
from cluster_side.modalities.ptychography.scan import cut_of, frames_of, mask_of, scan_with
from cluster_side.modalities.ptychography.start import look_for_probe

Arrays = Mapping[str, NDArray[Any]]
Seen = tuple[Reconstruction, ReconstructionState, NDArray[np.float64]]
"""A part of the scan, what it has become, and where its known positions are now."""
SHARE = 0.5
"""The progress of a task whose scan has just ended."""
WAIT = 2.0
SEEN = 1e-2
"""Share of the largest coverage above which a pixel of the object has been seen."""


def follow(given: Arrays, means: Means, feed: Feed, mask: pathlib.Path | None) -> tuple[Arrays, Seen | None]:
    """Reconstruct and show what is there until the scan is over; return its arrays, and what was seen last (None: nothing)."""
    cutter: Cutter | None = None
    taken, seen = 0, None
    while not feed.over:
        frames = frames_of(given)
        cutter = cutter or cutter_for(frames, cut_of(means.settings), mask_of(given, mask))
        cutter.take(frames, np.arange(taken, len(frames)))
        taken, news = len(frames), None
        if (job := _job(given, means, cutter)) is not None:
            seen, news = _grow(job, seen, feed)
        while news is None:
            news = feed.more(WAIT)
        given = news
    return given, seen


def _job(given: Arrays, means: Means, cutter: Cutter) -> Reconstruction | None:
    """Return the scan so far, ready to be reconstructed; None, with a note, while there are too few frames."""
    try:
        return Reconstruction(means, scan_with(given, means.settings, cutter.prepared(len(given["frames"]))))
    except BadInput as error:
        means.context.note(f"no preview of {len(given['frames'])} frames yet: {error}")
        return None


def _grow(job: Reconstruction, seen: Seen | None, feed: Feed) -> tuple[Seen, Arrays | None]:
    """Reconstruct what is there; return what was found, and what has come meanwhile."""
    context, every = job.means.context, np.arange(len(job.scan.known))
    plan, news = job.plan(), None
    if seen is not None:
        plan = replace(plan, stages=plan.stages[-1:], probe_after=0)

    def reconstructed() -> tuple[ReconstructionState, NDArray[np.float64]]:
        bench = job.bench()
        frames, state = job.begin(bench, every, None if seen is None else seen[1].probe)
        if seen is not None:
            state.object, state.errors = _placed(job, seen, bench.backend), seen[1].errors

        def tell(done: int) -> bool:
            nonlocal news
            if done % job.means.settings.every:
                return False
            if bench.team.rank == 0:
                context.tell(datasets.picture(job.scan, bench.backend, state), SHARE * feed.share)
            more = feed.more(0.0)
            news = news if more is None else more
            return feed.over

        run.run(bench, frames, state, plan, tell)
        return state, job.now(every, frames, state)

    if seen is None:
        look_for_probe(job)
    return (job, *job.fitting(reconstructed)), news


def _placed(job: Reconstruction, seen: Seen, backend: Backend) -> Any:
    """Return the object so far, at its place in the larger one; what was not seen yet is like the mean of what was."""
    (before, state, _), (height, width) = seen, seen[0].scan.shape
    row, column = (old - new for old, new in zip(before.scan.origin, job.scan.origin, strict=True))
    old, probe = (np.asarray(backend.to_host(array)) for array in (state.object, state.probe))
    inside, last = np.zeros((height, width)), (height - probe.shape[-2], width - probe.shape[-1])
    op.add_everywhere(inside, corners_of(before.scan.pixels, last), op.squared(np, probe).sum(axis=0))
    weight = inside / inside.sum()
    mean = (np.abs(old) * weight).sum() * np.exp(1j * np.angle((old * weight).sum()))
    whole = np.full(job.scan.shape, mean, np.complex64)
    seen_well = inside > SEEN * inside.max()
    whole[row : row + height, column : column + width][seen_well] = old[seen_well]
    return backend.array(whole)
