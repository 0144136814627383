"""What all parts of a configuration file have in common: they are frozen, refuse unknown keys, and names are plain."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,127}")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("a name has 1 to 128 letters, digits, or _ . + -, and no leading dot")
    return value


Name = Annotated[str, AfterValidator(_name)]


def _memory(value: Any) -> Any:
    """Return MiB for "2G", "512M" or a number of MiB."""
    if isinstance(value, str):
        if not (found := re.fullmatch(r"(\d+)([MGT])", value)):
            raise ValueError("write memory as a number and M, G or T: 512M, 2G")
        return int(found[1]) * {"M": 1, "G": 1024, "T": 1024**2}[found[2]]
    return value


Memory = Annotated[int, BeforeValidator(_memory), Field(ge=16)]
"""MiB."""


class Section(BaseModel):
    """A part of a configuration file: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NoSettings(Section):
    """There is nothing to set."""
