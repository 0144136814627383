"""A service with payloads keeps their memory for the next ones: a page that is given back is paid for again at its next touch."""

import subprocess
import sys

import pytest

PAYLOADS = """
import resource
from beamline_side.hosts import process

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        payloads = [bytearray(b"x") * (4 << 20) for _ in range(8)]
        del payloads
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / rounds

{keep}
faults(2)
print(faults(5))
"""


def faults_per_round(keep: str) -> float:
    """Return how often pages of 32 MiB must be found anew, in a process of its own."""
    return float(subprocess.check_output([sys.executable, "-c", PAYLOADS.format(keep=keep)], text=True))


def test_memory_of_payloads_is_used_again() -> None:
    if faults_per_round("") < 1000:
        pytest.skip("this C library keeps what is freed anyway")
    assert faults_per_round("process.keep_memory()") < 100
