"""A simulated beamline: a sample, detectors, and a scan written as files in real time."""
