"""Bounds on object and probe: limits of amplitude, supports, power, and orthogonal probe modes.

Source of the orthogonal modes: Odstrcil et al., Opt. Express 24 (2016) 8360 (principal modes of a mixed probe).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array, Backend


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds that hold after every update; None: free."""

    amplitude: tuple[float, float] | None = None
    """Least and largest |object|."""
    object_support: Array | None = None
    """(rows, columns), 0 where the object is known to be vacuum (1)."""
    probe_support: Array | None = None
    """(h, w), 0 where the probe is known to be dark."""
    probe_power: float | None = None
    """Sum of |probe|² over all modes."""


def bound_object(xp: Any, whole: Array, limits: Bounds) -> Array:
    """Return the object with its amplitude inside the limits, and vacuum outside its support."""
    if limits.amplitude is not None:
        size = xp.sqrt(op.squared(xp, whole)) + op.TINY
        low, high = limits.amplitude
        whole = whole * (xp.clip(size, low, high) / size)
    if limits.object_support is not None:
        whole = whole * limits.object_support + (1 - limits.object_support)
    return whole


def bound_probe(xp: Any, probe: Array, limits: Bounds) -> Array:
    """Return the probe inside its support, with the given power."""
    if limits.probe_support is not None:
        probe = probe * limits.probe_support
    if limits.probe_power is not None:
        probe = probe * (limits.probe_power / (float(xp.sum(op.squared(xp, probe))) + op.TINY)) ** 0.5
    return probe


def orthogonal(backend: Backend, probe: Array) -> Array:
    """Return orthogonal modes of the same mixed state, strongest first."""
    if probe.shape[0] == 1:
        return probe
    host = np.asarray(backend.to_host(probe), dtype=np.complex128)
    flat = host.reshape(len(host), -1)
    _, vectors = np.linalg.eigh(flat.conj() @ flat.T)
    modes = (vectors.T @ flat)[::-1]
    return backend.array(modes.reshape(host.shape))
