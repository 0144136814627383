"""Beamtide: X-ray micro/nano-probe data processed while it is measured.

`beamtide` holds what the beamline side and the cluster side agree on, and the public face.
"""

__version__ = "0.1.0"
