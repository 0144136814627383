"""Thin shells around the cores: each makes a core and lets the pump drive it."""
