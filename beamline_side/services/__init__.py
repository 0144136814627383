"""Thin shells: each makes its core and lets the pump drive it."""
