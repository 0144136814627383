"""Beamtide: X-ray micro/nano-probe data processed while it is measured.

`beamtide` holds what the beamline side and the cluster side agree on, and the public face.
"""

from beamtide.version import __version__ as __version__


def __getattr__(name: str) -> object:
    """Load what is heavier than a version number when it is first asked for: `beamtide.open` and `beamtide.Client`."""
    if name == "open":
        from beamtide.results.reading import open as open_scan

        return open_scan
    if name == "Client":
        from beamtide.client.client import Client

        return Client
    raise AttributeError(f"module 'beamtide' has no attribute {name!r}")
