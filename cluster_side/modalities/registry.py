"""Finds modalities by name, by the entry points "beamtide.modalities" of this and other packages."""

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities.base import Modality


def names() -> tuple[str, ...]:
    """Return the names of all modalities, sorted."""
    return registry.names("modalities")


def modality(name: str) -> Modality:
    """Return the light half of a modality; BadInput lists what there is."""
    found = registry.find("modalities", name)
    if not isinstance(found, Modality):
        raise BadInput(f"the entry point of modality {name!r} is not a Modality but a {type(found).__name__}; correct it")
    return found
