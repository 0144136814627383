"""The geometry of a scan: the pixel size of the object and, in the near field, the effective distance.

Far field: pixel = wavelength x distance / (detector pixels x detector pixel). Near field behind a point source: the cone beam is
a parallel one of the effective distance z1 z2 / (z1 + z2), magnified by (z1 + z2) / z1 (Fresnel scaling theorem; Paganin,
Coherent X-Ray Optics, 2006). Lengths are in metres, energies in keV.
"""

from dataclasses import dataclass

from beamtide.errors import BadInput

KEV_M = 1.23984198e-9
"""Wavelength in metres times energy in keV (CODATA 2018)."""
ENERGIES = (0.05, 200.0)
"""The range of plausible photon energies (keV)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the detector stands. `source` is the distance from focus to sample in the near field (None: far field)."""

    energy: float
    distance: float
    detector_pixel: float
    source: float | None = None

    @property
    def wavelength(self) -> float:
        """In metres."""
        return KEV_M / self.energy

    @property
    def magnification(self) -> float:
        """Of the near field."""
        return 1.0 if self.source is None else (self.source + self.distance) / self.source

    @property
    def effective_distance(self) -> float:
        """Sample to detector in the equivalent parallel beam, in metres."""
        return self.distance / self.magnification

    def pixel(self, detector_pixels: int) -> float:
        """Return the size of an object pixel in metres, for so many detector pixels each way."""
        if self.source is not None:
            return self.detector_pixel / self.magnification
        return self.wavelength * self.distance / (detector_pixels * self.detector_pixel)

    def fresnel_number(self, pixel: float) -> float:
        """Return pixel² / (wavelength x effective distance)."""
        return pixel * pixel / (self.wavelength * self.effective_distance)


def checked(energy: float, distance: float, detector_pixel: float, source: float | None = None) -> Geometry:
    """Return a geometry; BadInput for a number that must be in another unit."""
    low, high = ENERGIES
    if not low <= energy <= high:
        hint = f"; {energy:g} eV would be {energy / 1e3:g} keV" if high < energy <= high * 1e3 else ""
        raise BadInput(f"energy: {energy:g} keV is no X-ray photon energy ({low:g} to {high:g} keV){hint}")
    if not 1e-4 <= distance <= 200:
        raise BadInput(f"distance: {distance:g} m from sample to detector; give it in metres")
    if not 1e-7 <= detector_pixel <= 1e-3:
        raise BadInput(
            f"detector_pixel: {detector_pixel:g} m is no detector's pixel; settings want micrometres (75 for an Eiger)"
        )
    if source is not None and not source > 0:
        raise BadInput(f"source: {source:g} m from focus to sample; give a positive distance in metres")
    return Geometry(energy, distance, detector_pixel, source)
