"""A component file: a component that is not ours, with its own place among ours. The site file lists them under `components`."""

from typing import Annotated, Any

from pydantic import Field

from beamtide.config.section import Name, Section


class ComponentConfig(Section):
    """One component of a kind that another distribution brings (entry points "beamtide.components")."""

    component: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+-]{1,64}$")]
    """Its name, as `beamtide topology` and `beamtide serve` know it."""
    kind: Name
    """What it is; `beamtide formats` lists the kinds."""
    links: dict[Name, str] = {}
    """Where it connects to: the name that its kind has for a link -> the component, such as `sink: sink`."""
    settings: dict[str, Any] = {}
    """For its kind; `beamtide schema KIND` prints what it understands."""
