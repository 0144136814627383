"""The examples of P06 are what the site check accepts, and turn its encoders as P06's formula says."""

import pathlib

import numpy as np

from beamtide import registry
from beamtide.config import site
from cluster_side.modalities.base import run

SITE = pathlib.Path(__file__).parents[2] / "examples" / "p06" / "site.yaml"


def test_the_check_finds_nothing_but_the_folder_that_is_not_there() -> None:
    found = site.check(SITE)
    assert len(found) == 1
    assert "roots.raw" in found[0]


def test_x_and_y_are_p06s() -> None:
    settings = site.load(SITE).pipelines["encoders"].settings
    r, v, u = np.array([0.0, 30.0, 90.0]), np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    frames = {"encoder_1": r, "encoder_2": v, "encoder_3": u, "encoder_4": np.zeros(3)}
    found = run(registry.find("modalities", "encoders"), frames, settings)
    turn = np.radians(r)
    np.testing.assert_allclose(found["x"], np.sin(turn) * v + np.cos(turn) * u)
    np.testing.assert_allclose(found["y"], np.cos(turn) * v - np.sin(turn) * u)
