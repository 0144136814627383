"""P06's ADC and QBPM files give their columns by name."""

import pathlib

import h5py
import numpy as np
import pytest

from beamtide import registry
from beamtide.errors import BadInput


def test_all_columns_of_a_counter_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan_00042_00000.nxs"
    with h5py.File(path, "w") as file:
        file["entry/data/value1"], file["entry/data/exposuretime"] = np.arange(4.0), np.full(4, 0.01)
        file["entry/data/title"] = "no column"
    counters = registry.find("formats", "p06_counters")
    assert counters.probe(path, {}).frames == 4
    assert counters.read(path, 1, 3, {}).keys() == {"value1", "exposuretime"}
    with h5py.File(path, "w") as file:
        file["entry/other"] = 1
    with pytest.raises(BadInput, match="no columns in /entry/data"):
        counters.probe(path, {})
