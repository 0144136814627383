"""A modality for tests: each frame says for how many seconds its index takes. It is found by an entry point, like any other."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from cluster_side.modalities.base import Kernel, Modality, Output, SettingsModel

DISTRIBUTION = "[beamtide.modalities]\nnap = beamtide_nap:MODALITY\n"


class NapSettings(SettingsModel):
    """There is nothing to set."""


def load(_settings: NapSettings, _calibration: Mapping[str, pathlib.Path]) -> Kernel:
    def kernel(frames: Mapping[str, Any]) -> dict[str, Any]:
        time.sleep(float(frames["seconds"].sum()))
        return {"slept": frames["seconds"]}

    return kernel


MODALITY = Modality("nap", NapSettings, lambda _: (Output("slept", units="s"),), "beamtide_nap:load")


def install(folder: pathlib.Path) -> pathlib.Path:
    """Make a folder that only has to be on PYTHONPATH."""
    facts = folder / "beamtide_nap-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: beamtide-nap\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(DISTRIBUTION)
    (folder / "beamtide_nap.py").write_text(pathlib.Path(__file__).read_text())
    return folder
