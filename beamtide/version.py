"""The version of Beamtide."""

__version__ = "0.1.0"
