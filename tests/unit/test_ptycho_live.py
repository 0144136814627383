"""Ptychography of a scan that is still being measured: pictures that grow, and a result that is that of the finished scan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from beamtide.errors import BadInput
from beamtide.formats.lazy import InTurn
from cluster_side.modalities.context import Context
from cluster_side.modalities.ptychography.frames import Cut, cutter_for, prepare
from cluster_side.modalities.ptychography.kernel import load
from cluster_side.modalities.ptychography.spec import PtychographySettings
from tests.ptycho_scans import Truth, simulate

PER_FILE = 10


@pytest.fixture(scope="module")
def truth() -> Truth:
    return simulate(side=8, size=48)


@dataclass
class Beam:
    """A scan whose frames come in files; `lazy`: they are read when they are asked for. Nothing comes for `idle` looks."""

    truth: Truth
    steps: list[int]
    idle: int = 0
    at: int = 0
    over: bool = False
    looks: int = 0
    told: list[tuple[Mapping[str, Any], float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.steps[self.at] / len(self.truth.frames)

    def arrays(self) -> dict[str, Any]:
        stop = self.steps[self.at]
        whole = self.truth.arrays()
        files = [whole["frames"][first : min(stop, first + PER_FILE)] for first in range(0, stop, PER_FILE)]
        return {"frames": InTurn(files), "positions": whole["positions"][:stop]}

    def more(self, wait: float) -> Mapping[str, Any] | None:
        self.looks += 1
        if self.looks <= self.idle:
            return None
        self.looks = 0
        if self.at + 1 == len(self.steps):
            self.over = True
        else:
            self.at += 1
        return self.arrays()

    def context(self) -> Context:
        def tell(picture: Mapping[str, Any], share: float) -> None:
            self.told.append((picture, share))

        return Context(tell=tell, note=self.notes.append, feed=self)


def settings_for(truth: Truth, **more: Any) -> PtychographySettings:
    return PtychographySettings(
        **truth.settings(recipe="RAAR(0.85) 8 -> LSQML 4", every=4, probe={"kind": "mean"}, device="cpu", **more)
    )


def test_the_result_is_that_of_the_finished_scan_and_pictures_grow(truth: Truth) -> None:
    beam = Beam(truth, [16, 32, 48, 64], idle=2)
    kernel = load(settings_for(truth), {})
    found, offline = kernel(beam.arrays(), beam.context()), kernel(truth.arrays())
    live = {name for name in found if name.startswith("quality/live/")}
    assert found.keys() - live == offline.keys()
    assert {f"quality/live/{name.removeprefix('quality/')}" for name in offline if name.startswith("quality/")} == live
    assert found["quality/live/misfit"] > 0
    assert found["quality/live/misfit"] != found["quality/misfit"]
    for name, values in offline.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    pictures = [(picture["object"].shape, share) for picture, share in beam.told if picture]
    while_measured = [shape for shape, share in pictures if share <= 0.5]
    assert len(set(while_measured)) == 4, "each state was shown"
    assert while_measured == sorted(while_measured)
    assert while_measured[0] < while_measured[-1] == offline["object"].shape
    assert [share for _, share in beam.told] == sorted(share for _, share in beam.told), "progress never goes back"
    assert beam.told[-1][1] == 1.0


def test_what_was_seen_keeps_its_place_and_gets_better(truth: Truth) -> None:
    """What comes begins with what was found before: its misfit starts where a fresh start ends after some iterations."""
    truth = replace(truth, frames=truth.frames[::-1], measured=truth.measured[::-1])  # towards the object's pixel (0, 0)
    beam = Beam(truth, [40, 64], idle=20)
    settings = PtychographySettings(**truth.settings(recipe="RAAR(0.85) 20 -> LSQML 10", every=5, device="cpu"))
    load(settings, {})(beam.arrays(), beam.context())
    errors = [picture["error"] for picture, share in beam.told if picture and share <= 0.5][-1]
    assert len(errors) == 30 + 10, "the whole recipe first, then its last stage"
    fresh = load(PtychographySettings(**truth.settings(recipe="LSQML 10", device="cpu")), {})(truth.arrays())["error"]
    assert errors[30] < fresh[1]
    assert errors[39] < 0.9 * fresh[-1]


def test_too_little_is_waited_for(truth: Truth) -> None:
    beam = Beam(truth, [1, 64])
    found = load(settings_for(truth), {})(beam.arrays(), beam.context())
    assert beam.notes == ["no preview of 1 frames yet: positions: 1 of 1 are numbers; ptychography needs at least two"]
    np.testing.assert_array_equal(found["object"], load(settings_for(truth), {})(truth.arrays())["object"])


def test_frames_that_come_in_turn_are_cut_as_if_they_were_together(truth: Truth) -> None:
    frames, cut = truth.frames.copy(), Cut("corner")
    frames[50, 3, 4] = -1  # bad in a late frame: bad in all
    cutter = cutter_for(frames[:20], cut)
    cutter.take(frames[:20], np.arange(20))
    assert cutter.prepared(20).good.all()
    cutter.take(InTurn([frames[:30], frames[30:]]), np.arange(20, 64))
    together = prepare(frames, cut)
    np.testing.assert_array_equal(cutter.prepared(64).counts, together.counts)
    np.testing.assert_array_equal(cutter.prepared(64).good, together.good)
    assert not together.good[3, 4]
    assert not together.counts[:, 3, 4].any()


def test_a_scan_that_is_over_before_the_first_look_needs_no_pictures(truth: Truth) -> None:
    beam = replace(Beam(truth, [64]), over=True)
    load(settings_for(truth), {})(beam.arrays(), beam.context())
    assert all(share > 0.5 for _, share in beam.told)


def test_what_is_wrong_with_the_finished_scan_is_told(truth: Truth) -> None:
    beam = Beam(truth, [16, 64])
    far = PtychographySettings(**truth.settings(recipe="LSQML 2", device="cpu") | {"energy": 100.0})
    with pytest.raises(BadInput, match="check the unit of the positions"):
        load(far, {})(beam.arrays(), beam.context())
    assert len(beam.notes) == 2
