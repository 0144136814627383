"""Beamtide as users have it: wheels that are built from folders, in a new environment far from the checkout."""

import os
import pathlib
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from importlib.util import find_spec

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def backend(folder: pathlib.Path) -> dict[str, str]:
    """The environment in which the build backend can be imported; skip if it can neither be found nor be had."""
    if find_spec("hatchling"):
        return dict(os.environ)
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *required]
    had = subprocess.run(command, capture_output=True, text=True, check=False)
    if had.returncode:
        pytest.skip(
            f"no build backend: {' '.join(required)} is not installed here and cannot be had: {had.stderr.strip()[-200:]}"
        )
    return os.environ | {"PYTHONPATH": str(folder)}


def wheel_of(project: pathlib.Path, folder: pathlib.Path, environment: dict[str, str]) -> pathlib.Path:
    """Build the wheel of a folder with a pyproject.toml, in the environment that `backend` returned."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, project]
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return max(folder.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime_ns)


def clean_environment(folder: pathlib.Path, wheels: Sequence[pathlib.Path]) -> pathlib.Path:
    """Make a new environment of these wheels; what Beamtide depends on is taken from ours, the checkout is not."""
    venv.create(folder, symlinks=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin" / "python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, *wheels], cwd=folder, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = [entry for entry in sys.path if pathlib.Path(entry).name in {"site-packages", "dist-packages"}]
    # .pth files in those folders are not read, so no editable install
    (packages / "dependencies.pth").write_text("\n".join(ours))
    return folder


def run(clean: pathlib.Path, folder: pathlib.Path, *command: str, code: int = 0) -> str:
    """Run a program of the clean environment in a folder, as a user who has nothing but it; return what it printed."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    environment = kept | {"HOME": str(home), "PATH": f"{clean / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    program = [clean / "bin" / command[0], *command[1:]]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
