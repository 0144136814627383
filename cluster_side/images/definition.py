"""Image definitions: a file in `containers/` with its lock file.

Pure: text in, text out. A definition is a Singularity definition file with `{{ name }}` where `beamtide image build` fills in a
value.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from beamtide.errors import BadInput

HOLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)
PLAIN = re.compile(r"[A-Za-z0-9._:/@+=~-]+")
KINDS = ("worker-cpu", "worker-gpu", "worker-mpi", "beamline")
LABEL = "org.beamtide."
"""The prefix of our labels."""


@dataclass(frozen=True, slots=True)
class Base:
    """The base of an image: Singularity's `bootstrap`, and its source."""

    bootstrap: str
    name: str


def base_of(text: str, default: Base) -> Base:
    """Return the base that a person named: a folder or an image on this machine, "docker:NAME", or nothing for the default."""
    if not text:
        return default
    if text.startswith("docker:"):
        return Base("docker", text.removeprefix("docker:").removeprefix("//"))
    return Base("localimage", text)


def filled(definition: str, values: Mapping[str, str]) -> str:
    """Return the definition with every placeholder filled and its defaults (`%arguments`) left out.

    BadInput: a placeholder without a value, or a value with a character that a definition would not take literally.
    """
    if odd := [name for name, value in values.items() if not PLAIN.fullmatch(value)]:
        raise BadInput(f"{odd[0]} of the image is {values[odd[0]]!r}; use letters, digits and . _ : / @ + = ~ - only")
    kept = re.sub(r"^%arguments\n(?:[ \t]+.*\n|\n)*", "", definition, flags=re.MULTILINE)
    if missing := sorted(set(HOLE.findall(kept)) - values.keys()):
        raise BadInput(f"the definition has no value for {missing[0]}; look at its {{{{ {missing[0]} }}}}")
    return HOLE.sub(lambda hole: values[hole[1]], kept)


def default_base(definition: str) -> Base:
    """Return the base that a definition names in its `%arguments`."""
    found = dict(re.findall(r"^\s+(bootstrap|base)=(\S+)$", definition, flags=re.MULTILINE))
    if found.keys() != {"bootstrap", "base"}:
        raise BadInput("the definition names no base: it needs bootstrap= and base= under %arguments")
    return Base(found["bootstrap"], found["base"])


def pins(lock: str) -> tuple[str, ...]:
    """Return what a lock file pins, as "name==version"; BadInput when it pins nothing."""
    found = tuple(f"{name}=={version}" for name, version in PIN.findall(lock))
    if not found:
        raise BadInput("the lock file pins nothing; make it again with `make locks`")
    return found


def digest_of(lock: str) -> str:
    """Return the name of a set of versions: 12 hexadecimal digits over what is pinned, whatever the comments say."""
    return hashlib.sha256("\n".join(sorted(pins(lock))).encode()).hexdigest()[:12]
