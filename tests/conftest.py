"""What all tests share: where the measured data are, and which stories of the imaginary site are told."""

import os
import pathlib

import pytest
from hypothesis import settings

from tests.slurm.real import real_slurm  # noqa: F401  one cluster for all tests of a run

settings.register_profile("untimed", deadline=None)  # how fast a busy machine was says nothing about the code
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/world."""
    parser.addoption("--seeds", type=int, default=300, help="tests/world: play so many stories")
    parser.addoption("--seed", type=int, default=None, help="tests/world: play this story only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each story its seed."""
    if "story_seed" in metafunc.fixturenames:
        one, many = metafunc.config.getoption("--seed"), metafunc.config.getoption("--seeds")
        metafunc.parametrize("story_seed", range(many) if one is None else [one])


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of measured data, or a skip that says why."""
    default = pathlib.Path(__file__).parents[1].parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("BEAMTIDE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no measured data: {folder} is not a folder; set BEAMTIDE_TEST_DATA to it")
    return folder
