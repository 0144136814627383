"""The command `beamtide`: one file per group of commands."""
