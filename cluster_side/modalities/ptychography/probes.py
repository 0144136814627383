"""Starting probes.

Every start is a pupil (how bright each direction is in the far field) and a defocus; its transform is the probe at the sample:

    mean      the mean frame is the pupil: right for anything that focuses, and the default
    aperture  a round hole of this diameter at the sample
    kb        a rectangle: two mirrors of these apertures and focal lengths
    fzp       a ring: zone plate of this diameter, outermost zone and central stop
    former    the probe of a former result

A defocus z multiplies the pupil with exp(-i pi wavelength z q²), q in 1/m (Fresnel). Further modes start as the first one times
low orders of x and y, weak and unlike each other. The power is that of the mean frame.
"""

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.ptychography.geometry import Geometry
from cluster_side.modalities.ptychography.spec import Optics

Complex = NDArray[np.complex64]
WEAK = 0.3
"""Amplitude of each further mode, as a share of the first."""


def first_probe(optics: Optics, mean: NDArray[np.float32], geometry: Geometry, pixel: float) -> NDArray[np.complex128]:
    """Return one mode (h, w) at the sample; `mean` (h, w) is the mean frame, zero frequency in the corner; `pixel` in metres."""
    shape = mean.shape[0], mean.shape[1]
    rows, columns = (np.fft.fftfreq(length, pixel) for length in shape)
    square = rows[:, None] ** 2 + columns[None, :] ** 2
    if geometry.source is not None:
        return np.full(shape, np.sqrt(mean.mean()), complex)
    if optics.kind == "aperture" and optics.length("diameter") > min(shape) * pixel:
        raise BadInput(
            f"probe: an aperture of {optics.length('diameter'):g} m is wider than the {min(shape)} pixels of {pixel:.3g} m of "
            "the probe's array; use a larger crop, a smaller distance, or upsample"
        )
    if optics.kind == "aperture":
        size = _centred(shape, pixel)
        pupil = np.fft.fft2(np.fft.ifftshift(size <= optics.length("diameter") / 2)).astype(complex)
    elif optics.kind == "kb":
        half = [optics.length(f"aperture_{axis}") / (2 * optics.length(f"focal_{axis}")) / geometry.wavelength for axis in "yx"]
        pupil = ((np.abs(rows) <= half[0])[:, None] & (np.abs(columns) <= half[1])[None, :]).astype(complex)
    elif optics.kind == "fzp":
        focal = optics.length("diameter") * optics.length("outer_zone") / geometry.wavelength
        outer, inner = (optics.length(name) / (2 * focal) / geometry.wavelength for name in ("diameter", "stop"))
        pupil = ((square <= outer**2) & (square >= inner**2)).astype(complex)
    else:
        pupil = np.sqrt(mean).astype(complex)
    if not np.abs(pupil).any():
        raise BadInput(f"probe: the {optics.kind} lights no pixel of the detector; check its lengths (metres) and the energy")
    pupil = pupil * np.exp(-1j * np.pi * geometry.wavelength * optics.defocus * square)
    return np.fft.fftshift(np.fft.ifft2(pupil))


def modes(first: NDArray[np.complexfloating], count: int, power: float) -> Complex:
    """Return `count` modes (count, h, w) whose |probe|² sums to `power`; `first` may be some modes already."""
    known = first[None] if first.ndim == 2 else first[:count]
    height, width = known.shape[-2:]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    middle = np.abs(known[0]) ** 2 / (np.abs(known[0]) ** 2).sum()
    spread = np.sqrt([(middle * axis**2).sum() - (middle * axis).sum() ** 2 for axis in (y, x)]) + 1e-6
    y, x = (y - (middle * y).sum()) / spread[0], (x - (middle * x).sum()) / spread[1]
    shapes = [x**column * y**row for order in range(1, count + 1) for row in range(order + 1) for column in [order - row]]
    more = [known[0] * shapes[number] for number in range(count - len(known))]
    scale = np.linalg.norm(known[0])
    weak = [WEAK * scale / np.linalg.norm(mode) * mode for mode in more]
    probe = np.concatenate([known, np.array(weak).reshape(-1, height, width)]) if weak else known
    return np.asarray(probe * np.sqrt(power / (np.abs(probe) ** 2).sum()), dtype=np.complex64)


def spread(mean: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Return a frame on a grid `times` finer, with the same sum."""
    return np.asarray(np.repeat(np.repeat(mean, times, axis=0), times, axis=1) / times**2, dtype=np.float32)


def disc(shape: tuple[int, int], radius: float) -> NDArray[np.float32]:
    """Return 1 within a radius (pixels) around the middle, 0 outside."""
    return (_centred(shape, 1.0) <= radius).astype(np.float32)


def _centred(shape: tuple[int, int], pixel: float) -> NDArray[np.float64]:
    rows, columns = ((np.arange(length) - length // 2) * pixel for length in shape)
    return np.asarray(np.hypot(rows[:, None], columns[None, :]))
