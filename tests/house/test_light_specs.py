"""A spec is light: the autoscaler and the command line read it without loading what only kernels need."""

import subprocess
import sys

from beamtide import registry

HEAVY = {"PyMca5", "fisx", "scipy", "h5py", "numpy", "matplotlib", "silx", "pyFAI"}
SCRIPT = """
import sys
from beamtide import registry
for name in registry.names("modalities"):
    registry.find("modalities", name).settings.model_json_schema()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_every_spec_is_found_and_loads_nothing_heavy() -> None:
    assert {"counters", "dpc", "dpc_phase", "encoders", "interferometer", "positions", "xbic", "xrf"} <= set(
        registry.names("modalities")
    )
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert not HEAVY & set(done.stdout.split())
