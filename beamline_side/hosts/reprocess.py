"""Processes a scan again whose files are there: with present settings, where frames were missing before, or all of it.

Submitting tasks that are known changes nothing, so all of a scan is submitted. A hole is filled by the next generation of its
task, which takes its place; only the task of exactly these indexes can. A task that failed has a dead letter: that is retried,
and is not submitted here. To start over is to ask for products of the next round: what exists stays until they are there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from beamline_side.cores.distributor.cut_task import cut
from beamline_side.cores.task_plan import bound, contradiction, origins, plan
from beamtide import clock
from beamtide.client.adoption import adopted
from beamtide.client.client import Client
from beamtide.errors import BadInput
from beamtide.files.watch import FileWatch
from beamtide.messages.base import Digest, PipelineName
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import Hole, Product, ProductState, product_of
from beamtide.messages.tasks import Task


@dataclass(frozen=True, slots=True)
class Filling:
    """A task that was submitted to fill a hole of a product."""

    product: Product
    task: Task


@dataclass(frozen=True, slots=True)
class Reprocessing:
    """What was submitted: tasks by pipeline, and those of them that fill holes."""

    tasks: dict[str, int]
    filling: tuple[Filling, ...] = ()
    remarks: tuple[str, ...] = ()
    """Why holes stay holes although there are files for them."""


def reprocess(client: Client, scan: str, pipelines: Collection[str] = (), *, fresh: bool = False) -> Reprocessing:
    """Submit a scan in these pipelines (default: all), in those that take their datasets, and in those that they take from.

    BadInput: there is no such scan or pipeline, or settings or files of a pipeline cannot be used.
    """
    state = adopted(client, _known(client, scan))
    chosen = _with_their_neighbours(client, pipelines)
    if fresh:
        client.start_over(scan, {name: max(0, state.rounds.get(name, 0)) + 1 for name in pipelines or chosen})
        state = _known(client, scan)
    counts, filling, remarks = {}, list[Filling](), []
    for name in chosen:
        digest = client.put_settings(client.deployment.pipelines[name], state.rounds)
        if client.deployment.pipelines[name].source.kind == "submitted":
            continue
        planned = _planned(client, state, name, digest)
        product = Product(scan=state.scan.id, pipeline=PipelineName(name), settings=digest)
        fills = [Filling(product, task) for task in _fillings(client, product, planned)]
        if said := _moved(client, product, planned):  # nothing is put in another place
            planned, fills = [], []
        said = said or _partly(client, product, planned, fills)
        remarks += [f"{name}: {said}"] if said else []
        client.submit([*planned, *(one.task for one in fills)])
        counts[name] = len(planned)
        filling += fills
    return Reprocessing(counts, tuple(filling), tuple(remarks))


def settled(client: Client, filling: Sequence[Filling]) -> bool:
    """Whether each task that fills a hole has a verdict of its own."""
    if not filling:
        return True
    states = {state.product: state for state in client.products(filling[0].product.scan)}
    return not any(_is_open(states.get(one.product), one.task) for one in filling)


def _is_open(state: ProductState | None, task: Task) -> bool:
    holes = state.holes if state is not None else ()
    return any((hole.start, hole.stop) == (task.start, task.stop) and hole.generation < task.generation for hole in holes)


def _known(client: Client, scan: str) -> ScanState:
    found = client.scans(scan)
    if not found:
        raise BadInput(f"there is no scan {scan!r}; see `beamtide scan list`")
    return found[0]


def _moved(client: Client, product: Product, planned: Sequence[Task]) -> str:
    """Say which file belongs elsewhere by what is there now than where tasks were made of it before; "" if none does."""
    known = {file.path: file.origin for file in client.origins(product.scan, product.pipeline, product.settings)}
    known |= {path: origin for task in client.tasks_of(product) for path, origin in origins(task)}
    return contradiction(planned, known)


def _with_their_neighbours(client: Client, pipelines: Collection[str]) -> list[str]:
    """Return pipelines, all that take their datasets, and all that these take from. BadInput: there is no such."""
    every = client.deployment.pipelines
    if unknown := sorted(set(pipelines) - every.keys()):
        raise BadInput(f"there is no pipeline {unknown[0]!r}; this site has: {', '.join(every)}")
    chosen = set(pipelines or every)
    while more := {name for name, one in every.items() if chosen & {text.partition("/")[0] for text in one.inputs}} - chosen:
        chosen |= more
    while more := {text.partition("/")[0] for name in chosen for text in every[name].inputs} - chosen:
        chosen |= more
    return [name for name in every if name in chosen]


def _planned(client: Client, state: ScanState, name: str, digest: Digest) -> list[Task]:
    """Return all tasks of a scan in a pipeline, as its files are now."""
    pipeline = client.deployment.pipelines[name]
    facts = FileWatch(client.deployment.site.roots.raw, state.scan.id, pipeline.source).look(clock.monotonic())
    upstream = client.settings(digest).upstream
    return [bound(task, upstream) for task in plan(state, pipeline, digest, facts, closed=state.phase == "ended")]


def _fillings(client: Client, product: Product, planned: Sequence[Task]) -> list[Task]:
    """Return the tasks of those holes for which there are frames now, in the generation after that of the hole."""
    state = next((one for one in client.products(product.scan, product.pipeline) if one.product == product), None)
    if state is None or state.filed or not state.holes:
        return []
    failed = {letter.task.id for letter in client.dead_letters(product.pipeline) if letter.task.scan == product.scan}
    found = [_filling(hole, planned) for hole in state.holes]
    return [task for task in found if task is not None and task.id not in failed]


def _partly(client: Client, product: Product, planned: Sequence[Task], fills: Sequence[Filling]) -> str:
    """Say how many frames have come for indexes of holes that cannot be filled, because others of the same hole have none."""
    states = [state for state in client.products(product.scan, product.pipeline) if state.product == product]
    filled = {(one.task.start, one.task.stop) for one in fills}
    letters = client.dead_letters(product.pipeline) if states and states[0].holes else ()
    failed = {(one.task.start, one.task.stop) for one in letters if product_of(one.task) == product}
    holes = (hole for state in states for hole in state.holes)
    open_ones = [hole for hole in holes if (hole.start, hole.stop) not in filled | failed]
    there = sum(
        max(0, min(hole.stop, task.stop) - max(hole.start, task.start)) for hole in open_ones for task in planned if not task.void
    )
    return f"{there} indexes of holes have files now, but not all of a hole; start over to use them (--fresh)" if there else ""


def _filling(hole: Hole, planned: Sequence[Task]) -> Task | None:
    """Return the task of exactly the indexes of a hole; None where no frames came for them, or only for some."""
    for task in planned:
        if not task.void and task.start <= hole.start and hole.stop <= task.stop:
            same = (task.start, task.stop) == (hole.start, hole.stop)
            part = task if same else cut(task, hole.start, hole.stop)
            return None if part.void else msgspec.structs.replace(part, generation=hole.generation + 1)
    return None
