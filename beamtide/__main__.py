"""`python -m beamtide`: the same as the command `beamtide`."""

from beamtide.cli import main

main()
