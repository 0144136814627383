"""The command `beamtide`, a file per group of commands."""
