"""The operators of ptychography, one per function, for any array module (see `backend`).

Shapes: object (rows, columns); probe (modes, h, w); waves (positions, modes, h, w), all complex64; amplitudes (positions, h, w),
float32, square roots of counts. `corners` are integers: the object pixel under the probe's pixel (0, 0). The detector's
zero frequency lies in the corner of an array, as the transform puts it.

Sources: Thibault & Menzel, Nature 494 (2013) 68 (mixed states); Odstrcil, Menzel & Guizar-Sicairos, Opt. Express 26 (2018) 3108
(step sizes, positions); Maiden, Johnson & Li, Optica 4 (2017) 736 (rPIE).
"""

from collections.abc import Sequence
from typing import Any

from cluster_side.modalities.ptychography.engines.backend import Array

TINY = 1e-12
Corners = Sequence[tuple[int, int]]


def patches(xp: Any, whole: Array, corners: Corners, shape: tuple[int, int]) -> Array:
    """Return the parts of the object under the probe (positions, h, w)."""
    height, width = shape
    out = xp.empty((len(corners), height, width), dtype=whole.dtype)
    for number, (row, column) in enumerate(corners):
        out[number, ...] = whole[row : row + height, column : column + width]
    return out


def add_patches(total: Array, corners: Corners, parts: Array) -> None:
    """Add each part (h, w) to the object-sized array where it lies: the adjoint of `patches`."""
    height, width = parts.shape[-2:]
    for number, (row, column) in enumerate(corners):
        total[row : row + height, column : column + width] += parts[number, ...]


def add_everywhere(total: Array, corners: Corners, part: Array) -> None:
    """Add one part (h, w) at every corner: coverage, when the part is the probe's intensity."""
    height, width = part.shape
    for row, column in corners:
        total[row : row + height, column : column + width] += part


def exit_waves(probe: Array, parts: Array) -> Array:
    """Return probe times object for every position and mode; `probe` is (modes, h, w) or (positions, modes, h, w)."""
    return probe * parts[:, None, :, :]


def intensity(xp: Any, waves: Array) -> Array:
    """Return |wave|² summed over the modes (positions, h, w), float32."""
    real, imaginary = xp.real(waves), xp.imag(waves)
    squares = real * real
    squares += imaginary * imaginary
    return squares[:, 0, ...] if waves.shape[1] == 1 else xp.sum(squares, axis=1)


def binned(xp: Any, fine: Array, times: int) -> Array:
    """Return sums over times x times pixels: what a detector pixel collects of a finer grid."""
    if times == 1:
        return fine
    count, height, width = fine.shape
    return xp.sum(xp.reshape(fine, (count, height // times, times, width // times, times)), axis=(2, 4))


def spread_out(xp: Any, coarse: Array, times: int) -> Array:
    """Return each pixel repeated times x times: the adjoint of `binned`."""
    return coarse if times == 1 else xp.repeat(xp.repeat(coarse, times, axis=-1), times, axis=-2)


def modulus(xp: Any, modelled: Array, amplitudes: Array, good: Array | None) -> tuple[Array, Array]:
    """Return measured / modelled amplitude (1 where masked), and the sum of (modelled - measured amplitude)² over good pixels.

    Waves times the first agree with the measurement. `modelled` are intensities; `good` (h, w) is 1 where the detector is to
    be believed, 0 elsewhere.
    """
    root = xp.sqrt(modelled)
    difference = root - amplitudes
    if good is not None:
        difference *= good
    flat = xp.reshape(difference, (-1,))
    root += TINY
    factor = amplitudes / root
    if good is not None:
        factor *= good
        factor += 1 - good
    return factor, flat @ flat


def brightness(xp: Any, modelled: Array, amplitudes: Array, good: Array | None) -> Array:
    """Return the factor per position by which modelled amplitudes explain the measured ones best (least squares)."""
    if good is not None:
        modelled, amplitudes = modelled * good, amplitudes * good
    return xp.sum(amplitudes * xp.sqrt(modelled), axis=(1, 2)) / (xp.sum(modelled, axis=(1, 2)) + TINY)


def onto_object(xp: Any, probe: Array, waves: Array) -> Array:
    """Return conj(probe) wave, summed over the modes (positions, h, w): the numerator of the object."""
    product = xp.conj(probe) * waves
    return product[:, 0, ...] if product.shape[1] == 1 else xp.sum(product, axis=1)


def onto_probe(xp: Any, parts: Array, waves: Array) -> Array:
    """Return conj(object) wave, summed over the positions (modes, h, w): the numerator of the probe."""
    return xp.sum(xp.conj(parts)[:, None, :, :] * waves, axis=0)


def object_power(whole_squared: Array, corners: Corners, shape: tuple[int, int]) -> Array:
    """Return |object|² summed over the positions (h, w), from |object|² of the whole: the denominator of the probe."""
    height, width = shape
    total = whole_squared[:height, :width] * 0
    for row, column in corners:
        total += whole_squared[row : row + height, column : column + width]
    return total


def squared(xp: Any, array: Array) -> Array:
    """Return |array|², float32."""
    real, imaginary = xp.real(array), xp.imag(array)
    return real * real + imaginary * imaginary


def inner(xp: Any, one: Array, other: Array) -> Array:
    """Return Re <one, other> per position (first axis)."""
    product = xp.real(one) * xp.real(other)
    product += xp.imag(one) * xp.imag(other)
    return xp.sum(product, axis=tuple(range(1, product.ndim)))


def slope(xp: Any, parts: Array, axis: int) -> Array:
    """Return the central difference per pixel along an axis, with wrapped edges (where the probe is dark)."""
    return 0.5 * (xp.roll(parts, -1, axis=axis) - xp.roll(parts, 1, axis=axis))
