"""Ptychography: frames and positions become object and probe."""
