"""Messages about results: worker to sorter (stored), sorter to sink (in order), sink to everyone (query and watch).

A *product* is what one pipeline makes of one scan with one set of settings. The visible key of a result is
(scan, pipeline, settings, index range): storing it twice changes nothing.
"""

from typing import Literal

import msgspec

from beamtide.messages.base import Digest, Handle, Message, PipelineName, ScanId, TaskId
from beamtide.messages.tasks import Outcome, Task

Per = Literal["index", "scan"]
"""Whether a dataset has one row per acquisition index, or one value for the scan, merged from all tasks."""
Merge = Literal["rows", "sum", "max", "first"]
"""How partial results of tasks become one: rows are put in index order, sums added, maxima compared, constants kept."""


class Product(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What one pipeline makes of one scan with one set of settings."""

    scan: ScanId
    pipeline: PipelineName
    settings: Digest

    @property
    def key(self) -> str:
        """The key of its rows in a spool."""
        return f"{self.scan}/{self.pipeline}/{self.settings}"


def product_of(task: Task) -> Product:
    """Return the product that a task's result is a part of."""
    return Product(scan=task.scan, pipeline=task.pipeline, settings=task.settings)


class DatasetHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What one named array is; the array itself travels as a part of the same message.

    `name` may hold slashes ("area/Fe_K"). Where it is a sentence, the attribute "text" is that sentence, and the array its bytes.
    """

    name: str
    units: str
    per: Per = "index"
    merge: Merge = "rows"
    long_name: str = ""
    attributes: dict[str, str] = {}


class Provenance(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Who computed a result, with what, and how long it took (seconds)."""

    worker: str
    host: str
    job: str
    attempt: int
    seconds: float
    versions: dict[str, str] = {}
    image: str = ""


class Hole(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Indexes without a result, and why; `generation`: of the task that has no result."""

    start: int
    stop: int
    reason: str
    generation: int = 0


class StoreRequest(Message, frozen=True, kw_only=True):
    """Keep this result; answered `Ok` once it is on disk, so that the worker may acknowledge its lease.

    The arrays of the message have the names of `datasets`. An "abandoned" verdict comes from the buffer, without arrays;
    it is answered `StoredBefore` if the task has a result nevertheless. `holes` are indexes of the task whose frames could not be
    read: their rows are NaN, or 0 for integers.
    """

    task: Task
    attempt: int
    outcome: Outcome
    reason: str = ""
    datasets: tuple[DatasetHeader, ...] = ()
    provenance: Provenance | None = None
    holes: tuple[Hole, ...] = ()


class StoredBefore(Message, frozen=True, kw_only=True):
    """An abandoned task has a result: a worker stored it, and died before it could report it."""

    task: TaskId
    outcome: Outcome


class RoomRequest(Message, frozen=True, kw_only=True):
    """May I send a result of `size` bytes? Answered `Ok`, or `Refused` with the time after which to ask again.

    A worker with a small result need not ask.
    """

    task: TaskId
    size: int


class Release(Message, frozen=True, kw_only=True):
    """The sorter's next result of a product in index order; the sink answers `Released` once it is on disk."""

    result: StoreRequest


class ReleaseHeld(Message, frozen=True, kw_only=True):
    """As `Release`, for a sink on the same host: indexes `start <= index < stop` are not sent; `payload` says where they lie.

    Answered `Released`, or `NotHeld` by a sink that cannot read it.
    """

    task: TaskId
    product: Product
    start: int
    stop: int
    payload: Handle
    generation: int = 0


class NotHeld(Message, frozen=True, kw_only=True):
    """There is no such payload on my host: send the result of this task whole, as `Release`."""

    task: TaskId


class Filed(Message, frozen=True, kw_only=True):
    """A product as of this version is in a result file, and no task of its scan is open or can be retried: answered `Ok`.

    The sink may delete its results when it needs the room.
    """

    product: Product
    version: int


class Released(Message, frozen=True, kw_only=True):
    """The sink keeps the result of this task, in this generation or a higher one.

    `outcome` is that of what it keeps for exactly the indexes of the task; "" if it keeps other results for them.
    """

    task: TaskId
    generation: int = 0
    outcome: Outcome | Literal[""] = ""


# --- the sink's API ------------------------------------------------------------------------------------------------


class ProductState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How far a product is: indexes `[0, complete)` have verdicts; `version` grows with every change of the sink.

    `corrections` grows each time that a later result takes the place of a hole. `filed`: the results are in files, and the sink
    has deleted its copy; this message still holds.
    """

    product: Product
    modality: str
    complete: int
    version: int
    datasets: tuple[DatasetHeader, ...] = ()
    holes: tuple[Hole, ...] = ()
    results: int = 0
    corrections: int = 0
    filed: bool = False


class ListRequest(Message, frozen=True, kw_only=True):
    """Which products are there, of this scan ("" = any) and pipeline ("" = any)? Answered `Products`."""

    scan: ScanId = ScanId("")
    pipeline: PipelineName = PipelineName("")


class WatchRequest(Message, frozen=True, kw_only=True):
    """Answer with `Products` whose version is above `after` as soon as there are some, or after `wait` seconds.

    A late joiner asks with `after=0` and gets the latest state of everything; a slow watcher gets the newest state of what
    changed, never a backlog. Nothing is lost: arrays are fetched by index range.
    """

    after: int
    wait: float = 10.0
    scan: ScanId = ScanId("")
    pipeline: PipelineName = PipelineName("")


class Products(Message, frozen=True, kw_only=True):
    """Products that match, and the sink's version: the `after` of the next `WatchRequest`."""

    products: tuple[ProductState, ...]
    version: int


class FetchRequest(Message, frozen=True, kw_only=True):
    """Indexes `[start, stop)` of one dataset (for a per-scan dataset: merged over the results inside). Answered `Fetched`."""

    product: Product
    dataset: str
    start: int
    stop: int


class Fetched(Message, frozen=True, kw_only=True):
    """The array part "data" holds rows `start <= index < stop`; rows of holes are NaN, or 0 for integers."""

    header: DatasetHeader
    start: int
    stop: int
    holes: tuple[Hole, ...] = ()


class ResultsRequest(Message, frozen=True, kw_only=True):
    """The results of a product whose task starts at or after index `start`, in order, at most about `limit` bytes.

    Answered `Results`: a writer uses it to copy everything, with provenance and holes, exactly once. `bare`: without the arrays.
    """

    product: Product
    start: int
    limit: int = 16 << 20
    bare: bool = False


class Results(Message, frozen=True, kw_only=True):
    """Whole results in index order; array parts are named "<position>/<dataset>"; `next` is the next `start` to ask for."""

    results: tuple[StoreRequest, ...]
    next: int
