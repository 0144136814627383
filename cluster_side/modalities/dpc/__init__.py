"""Differential phase contrast: what each frame, or each reading of a segmented detector, says about the beam."""
