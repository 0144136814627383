"""The phase of a whole scan, from the deflections of its points."""
