"""`python -m beamtide`: the same as the command `beamtide`."""

from beamtide.cli.main import main

main()
