"""Build an image: wheels of what the lock file pins, a filled definition, the container program.

Wheels are made on this machine, so the image needs no network and no compiler of its own; the interpreter of the image must have
the same minor version as ours, which is checked before anything is built. The image gets its name when it is complete and has
passed its own test.
Clock policy: none; long steps are reported through `say`.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from beamtide.errors import BadInput
from beamtide.version import __version__
from cluster_side.images import definition, runtime
from cluster_side.images.definition import Base
from cluster_side.modalities import native

Say = Callable[[str], None]
CHECKOUT = pathlib.Path(__file__).parents[2]
SQUASH = ("--mksquashfs-args", "-comp lz4 -all-root")
"""lz4 instead of gzip: an image is built in a quarter of the time and starts quicker, and is a fifth larger. All files are
root's: a root that may not give files away (in some virtual machines) could not unpack it otherwise."""
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
CHUNK = 1 << 22
LAST_LINES = 6
COLOUR = re.compile(r"\x1b\[\d+m")


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """Which image to make where. `base`: a local root folder or image, "docker:NAME", or "" for the definition's own."""

    kind: str
    image: pathlib.Path
    base: str = ""
    sandbox: bool = False
    wheels: pathlib.Path | None = None
    """A folder that keeps wheels between builds."""
    plugins: tuple[pathlib.Path, ...] = ()
    """Other distributions that go in as well, as folders or wheels; what they need, the lock file must hold."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was made: where, how large, and under which digests."""

    image: pathlib.Path
    megabytes: float
    digest: str
    lock: str


def build(order: BuildOrder, say: Say) -> Built:
    """Build an image. BadInput: what is missing or in the way, before the build starts; or the last lines of its output."""
    folder = CHECKOUT / "containers"
    if order.kind not in definition.KINDS:
        raise BadInput(f"there is no image {order.kind!r}; there are: {', '.join(definition.KINDS)}")
    if not folder.is_dir():
        raise BadInput(f"images are built from a checkout of Beamtide, and {folder} is not there; clone it and build there")
    if order.image.exists():
        raise BadInput(f"{order.image} exists already; remove it or choose another name")
    program = runtime.detect()
    text, lock = (folder / f"{order.kind}.def").read_text(), folder / "locks" / f"{order.kind}.lock"
    base = definition.base_of(order.base, definition.default_base(text))
    _look_at(base)
    with tempfile.TemporaryDirectory(prefix="beamtide-image-", dir=order.image.resolve().parent) as place:
        room = pathlib.Path(place)
        room.chmod(0o755)  # the builder may be another user inside
        _wheels(order.wheels or room / "kept", lock, room / "wheels", say)
        added = add_plugins(order.plugins, room / "wheels")
        values = _values(base, room / "wheels", folder / "recipe", lock) | {"plugins": "/".join(added) or "none"}
        recipe = room / "Singularity.def"
        _understood(text, values, room / "read-back.def")
        recipe.write_text(definition.filled(text, values))
        say(f"building {order.image.name} with {program.version}, from {base.name}")
        _run(program, order, recipe, room)
    return Built(order.image, size(order.image) / 1e6, file_digest(order.image), values["digest"])


def file_digest(image: pathlib.Path) -> str:
    """Return "sha256:…" of an image file, or "" for a folder (a sandbox has no digest that is quick to compute)."""
    if image.is_dir():
        return ""
    digest = hashlib.sha256()
    with image.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def size(image: pathlib.Path) -> int:
    """Return the bytes of an image, file or folder."""
    if image.is_dir():
        return sum(file.lstat().st_size for file in image.rglob("*") if not file.is_dir())
    return image.stat().st_size


def _look_at(base: Base) -> None:
    """Refuse a local folder that does not exist, or whose Python has another version than ours."""
    if base.bootstrap != "localimage":
        return
    root = pathlib.Path(base.name)
    if not root.exists():
        raise BadInput(f"the base {root} is not there; make it with debootstrap (see containers/README.md)")
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if root.is_dir() and not (root / "usr/bin" / wanted).exists():
        raise BadInput(f"the base {root} has no usr/bin/{wanted}; choose a base with {wanted}, or build with its own Python")


def _wheels(kept: pathlib.Path, lock: pathlib.Path, place: pathlib.Path, say: Say) -> None:
    """Fill `place` with a wheel of everything: what the lock pins (checked by hash), pip itself, and Beamtide."""
    kept.mkdir(parents=True, exist_ok=True)
    say(f"wheels of {len(definition.pins(lock.read_text()))} packages, as {lock.name} pins them")
    _quietly([*PIP, "wheel", "--require-hashes", "--no-deps", "--find-links", kept, "-r", lock, "-w", kept])
    _quietly([*PIP, "download", "--no-deps", "--find-links", kept, "pip", "-d", kept])
    place.mkdir()
    _quietly([*PIP, "wheel", "--no-deps", "-w", place, CHECKOUT])
    ours = next(place.glob("beamtide-*.whl"))
    for wheel in _wanted(kept, lock.read_text()):
        shutil.copy(wheel, place)
    for kind in native.kinds():  # compiled here, for all of them: the image has no compiler
        native.built(kind, place / "native")
    names = [*definition.pins(lock.read_text()), f"beamtide=={ours.name.split('-')[1]}"]
    (place / "names.txt").write_text("\n".join(names) + "\n")


def add_plugins(plugins: Sequence[pathlib.Path], place: pathlib.Path) -> list[str]:
    """Put wheels of other distributions beside ours in `place`, to be installed with them; return them as "name==version".

    BadInput: one is not there, or needs what the image does not hold.
    """
    if missing := [path for path in plugins if not path.exists()]:
        raise BadInput(f"--with {missing[0]}: there is no such folder or wheel")
    before, names = set(place.glob("*.whl")), place / "names.txt"
    for path in plugins:
        _quietly([*PIP, "wheel", "--no-deps", "-w", place, path.resolve()])
    new = sorted(set(place.glob("*.whl")) - before)
    if new:  # nothing is installed: would what they need be found?
        _quietly([*PIP, "install", "--dry-run", "--ignore-installed", "--no-index", "--find-links", place, *new])
    pins = ["==".join(wheel.name.split("-")[:2]) for wheel in new]
    names.write_text(names.read_text() + "".join(f"{pin}\n" for pin in pins))
    return pins


def _wanted(kept: pathlib.Path, lock: str) -> Iterator[pathlib.Path]:
    """Return the wheels in `kept` that the lock pins, and the newest pip."""
    wanted = {_key(*pin.split("==")) for pin in definition.pins(lock)}
    yield from (wheel for wheel in kept.glob("*.whl") if _key(*wheel.name.split("-")[:2]) in wanted)
    yield max(kept.glob("pip-*.whl"))


def _key(name: str, version: str) -> tuple[str, str]:
    return name.lower().replace("-", "_").replace(".", "_"), version


def _values(base: Base, wheels: pathlib.Path, recipe: pathlib.Path, lock: pathlib.Path) -> dict[str, str]:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    return {
        "bootstrap": base.bootstrap,
        "base": base.name,
        "wheels": str(wheels),
        "recipe": str(recipe),
        "lock": str(lock),
        "version": __version__,
        "commit": asked.stdout.strip() or "unknown",
        "digest": definition.digest_of(lock.read_text()),
    }


def _understood(text: str, values: dict[str, str], place: pathlib.Path) -> None:
    """Let spython parse the filled-in definition: a mistake in it is found before minutes are spent on the build.

    spython knows docker bases only, so it gets the definition with one.
    """
    from spython.main.parse.parsers import get_parser

    place.write_text(definition.filled(text, values | {"bootstrap": "docker", "base": "debian"}))
    stage = next(iter(get_parser("singularity")(str(place)).parse().values()))
    lost = [name for name in ("install", "test", "labels", "files", "environ") if not getattr(stage, name)]
    if lost:
        raise BadInput(f"the definition has no {lost[0]} section that could be read; look at containers/")


def _run(program: runtime.Runtime, order: BuildOrder, recipe: pathlib.Path, room: pathlib.Path) -> None:
    """Build under a temporary name, and rename the image when all is well."""
    from spython.utils import stream_command

    beside = room / order.image.name
    options = ["--sandbox"] if order.sandbox else list(SQUASH)
    options += ["--fakeroot"] if _lacks_capabilities() else []
    last: list[str] = []
    try:
        for line in stream_command([str(program.path), "build", *options, str(beside), str(recipe)], output_type="both"):
            last = [*last, COLOUR.sub("", line).strip()][-LAST_LINES:]
    except subprocess.CalledProcessError as error:
        raise BadInput(f"{program.program} could not build {order.image}: {_reason(last)}") from error
    if not beside.exists():
        raise BadInput(f"{program.program} did not build {order.image}: {_reason(last)}")
    beside.rename(order.image)


def _lacks_capabilities() -> bool:
    """Whether we are root without all rights, as in some virtual machines: %post then needs a user namespace."""
    if os.geteuid() != 0:
        return False
    status = pathlib.Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    return bounding != (1 << int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1) - 1


def _reason(last: list[str]) -> str:
    said = " ".join(line for line in last if line) or "it said nothing"
    if "subuid" in said or "newuidmap" in said:
        return f"{said}. Give this user a range of sub-uids (usermod --add-subuids 300000-365535 USER) and install uidmap"
    return said


def _quietly(command: Sequence[str | pathlib.Path]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise BadInput(f"wheels for the image could not be made: {' '.join(words[-2:]) or 'pip said nothing'}")
