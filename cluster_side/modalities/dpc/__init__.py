"""Differential phase contrast, from frames or from a segmented detector."""
