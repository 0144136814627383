"""Positions from encoder counts."""
