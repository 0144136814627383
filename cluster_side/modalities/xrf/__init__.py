"""Element maps from fluorescence spectra."""
