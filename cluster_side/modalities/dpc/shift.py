"""Fourier shift: by how much a profile is moved, and how bright it is, against that of the empty beam. Pure.

Theory (the model of H. Yan et al., Sci. Rep. 3 (2013) 1307): with F the Fourier transform of the profile and R that of the
reference, F = a R exp(-i w s). The sum of squares is least where c(s) = Re sum F conj(R) exp(i w s) is greatest; then
a = c / sum |R|^2. All profiles at once: start at the highest point of the circular correlation, then Newton's steps on c.
"""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
STEPS = 8


def shifts(profiles: Values, reference: Values) -> tuple[Values, Values]:
    """Return shift (pixels, positive towards higher pixels) and amplitude of profiles (n, length) against a reference (length,).

    NaN where a profile or the reference is empty or not finite.
    """
    length = len(reference)
    frequency = 2 * np.pi * np.fft.fftfreq(length)
    good = np.isfinite(profiles).all(axis=1) & (profiles.sum(axis=1) > 0)
    power = np.sum(np.abs(np.fft.fft(reference)) ** 2)
    product = np.fft.fft(np.where(good[:, None], profiles, 0.0)) * np.conj(np.fft.fft(reference))
    at = np.argmax(np.fft.ifft(product).real, axis=1).astype(float)
    shift = np.where(at > length / 2, at - length, at)
    for _ in range(STEPS):
        turned = product * np.exp(1j * frequency * shift[:, None])
        slope = (1j * frequency * turned).real.sum(axis=1)
        bend = (frequency**2 * turned.real).sum(axis=1)
        shift = shift + np.clip(np.divide(slope, bend, out=np.zeros_like(slope), where=bend > 0), -0.5, 0.5)
    turned = product * np.exp(1j * frequency * shift[:, None])
    unknown = ~good if power > 0 and np.isfinite(power) else np.ones(len(profiles), bool)
    amplitude = turned.real.sum(axis=1) / (power or 1.0)
    return np.where(unknown, np.nan, shift), np.where(unknown, np.nan, amplitude)
