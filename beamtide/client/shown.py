"""Of several products of a scan and pipeline, the one that people see who ask for no other. Pure."""

from collections.abc import Iterable, Mapping

from beamtide.messages.base import Digest
from beamtide.messages.results import ProductState


def shown(products: Iterable[ProductState], now: Mapping[str, Digest]) -> dict[str, ProductState]:
    """Return the product of each pipeline with its present settings (`now`); while there is none, the one that changed last.

    All products are of one scan.
    """
    ordered = sorted(products, key=lambda one: (now.get(one.product.pipeline) == one.product.settings, one.version))
    return {one.product.pipeline: one for one in ordered}


def ambiguous(products: Iterable[ProductState]) -> bool:
    """Whether a pipeline has several products, so that the present settings have to be known."""
    pipelines = [one.product.pipeline for one in products]
    return len(set(pipelines)) < len(pipelines)
