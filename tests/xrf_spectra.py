"""Spectra of a task in one piece, for tests and benchmarks; the kernel takes them block by block."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.xrf.elements import blocks
from cluster_side.modalities.xrf.spec import XrfSettings


def summed(frames: Mapping[str, NDArray[Any]], settings: XrfSettings) -> NDArray[np.float32]:
    """Return the sum of the chosen detector elements, each times its dead-time factor; a row without one is NaN."""
    return np.concatenate([block.counts.copy() for block in blocks(frames, settings, (0.0, 1.0))])
