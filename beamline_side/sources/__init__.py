"""Where tasks come from: detector files, and a simulated beamline."""
