"""Positions from laser interferometers."""
