"""What all tests share: where the measured data are."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of measured data, or a skip that says why."""
    default = pathlib.Path(__file__).parents[1].parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("BEAMTIDE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no measured data: {folder} is not a folder; set BEAMTIDE_TEST_DATA to it")
    return folder
