"""Results of 0.1.0 keep their identity: they state no source, and the one that they were made with is meant.

Where a scan has results without a stated source, and their tasks show that they were made from what the pipeline file says now,
the scan is marked (`UNSTATED`), so that they stay what they are. Where that cannot be shown, new ones lie beside them.
"""

from fnmatch import fnmatchcase

from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import PipelineConfig
from beamtide.config.settings import UNSTATED
from beamtide.errors import BadInput
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import Product


def adopted(client: Client, state: ScanState) -> ScanState:
    """Return a scan as it is after its results of 0.1.0, if it has any, were recognised."""
    every = client.deployment.pipelines
    unmarked = {name for name, one in every.items() if one.source.kind == "files" and name not in state.rounds}
    there = [one.product for one in client.products(state.scan.id) if one.product.pipeline in unmarked]
    if not there:
        return state
    try:
        before = site.settings_of(client.deployment, dict.fromkeys(every, UNSTATED))
    except BadInput:  # told where they are used
        return state
    old = [one for one in there if one.settings == before[one.pipeline] and _same_source(client, one, every[one.pipeline])]
    if not old:
        return state
    client.start_over(state.scan.id, dict.fromkeys([one.pipeline for one in old], UNSTATED))
    return client.scans(state.scan.id)[0]


def _same_source(client: Client, product: Product, pipeline: PipelineConfig) -> bool:
    """Whether the tasks of a product show that they were made from what the pipeline file says now."""
    source, made_of = pipeline.source, [one for task in client.tasks_of(product) for one in task.inputs]
    if source.first is not None or source.frames_per_file != "auto" or pipeline.snake is not None:
        return False
    patterns = [source.match.replace("{scan}", part) for part in (product.scan, *product.scan.split("+"))]
    return bool(made_of) and all(
        (one.format, one.options) == (source.format, source.options) and any(fnmatchcase(one.path, name) for name in patterns)
        for one in made_of
    )
