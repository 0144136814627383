"""What a careful user would write instead of Beamtide, with the same outputs: one script per kind of scan, without Beamtide."""
