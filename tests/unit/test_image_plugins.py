"""Distributions of others in an image: they go in if what they need is there, and that is known before it is built."""

import pathlib
import zipfile

import pytest

from beamtide.errors import BadInput
from cluster_side.images import build as builder


def wheel(folder: pathlib.Path, name: str, needs: str = "") -> pathlib.Path:
    """Make a wheel by hand: a module, and what it needs."""
    path, facts = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        file.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{facts}/RECORD", f"{name}.py,,\n{facts}/METADATA,,\n{facts}/WHEEL,,\n{facts}/RECORD,,\n")
    return path


def test_other_distributions_go_into_an_image_if_what_they_need_is_there(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "wheels"
    place.mkdir()
    wheel(place, "pinned_one")
    (place / "names.txt").write_text("pinned_one==1.0\n")
    good, bad = (
        wheel(tmp_path, "my_roi", "Requires-Dist: pinned-one\n"),
        wheel(tmp_path, "my_map", "Requires-Dist: gone-for-good\n"),
    )
    assert builder.add_plugins((), place) == []
    assert builder.add_plugins((good,), place) == ["my_roi==1.0"]
    assert (place / "names.txt").read_text() == "pinned_one==1.0\nmy_roi==1.0\n"
    with pytest.raises(BadInput, match="gone-for-good"):
        builder.add_plugins((bad,), place)
    with pytest.raises(BadInput, match="there is no such folder or wheel"):
        builder.add_plugins((tmp_path / "nothing",), place)
