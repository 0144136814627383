"""Positions of a whole scan: spikes, comparisons, maps."""
