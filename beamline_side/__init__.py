"""The beamline side: long-lived, light components near the instrument."""
