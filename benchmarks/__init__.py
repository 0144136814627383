"""Measurements of Beamtide, each beside the floor that the machine sets and, where there is one, a peer."""
