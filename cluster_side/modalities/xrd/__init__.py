"""Powder patterns from area detector frames."""
