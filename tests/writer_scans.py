"""A small scan as the sink would tell it: plain values for the tests of writers and results."""

import dataclasses

import numpy as np

from beamline_side.writers.maps import Positions
from beamline_side.writers.product import Batch, Content
from beamtide.messages.base import Digest
from beamtide.messages.metadata import ScanState, SettingsDocument
from beamtide.messages.results import DatasetHeader, Product, Provenance, StoreRequest
from beamtide.task_id import task_id
from tests.builders.scans import make_scan, make_state
from tests.builders.tasks import make_input, make_product, make_task

SETTINGS = Digest("ab" * 32)
HEADERS = (
    DatasetHeader(name="area/Fe_K", units="counts", long_name="Fe K", attributes={"show": "first"}),
    DatasetHeader(name="area/Cu_K", units="counts", long_name="Cu K", attributes={"show": "first"}),
    DatasetHeader(name="frames", units="1"),
    DatasetHeader(name="spectra", units="counts"),
    DatasetHeader(name="sum_spectrum", units="counts", per="scan", merge="sum", attributes={"axis": "energy"}),
    DatasetHeader(name="energy", units="keV", per="scan", merge="first"),
)


def product_of(settings: str = SETTINGS, scan: str = "scan_1") -> Product:
    return make_product(scan, "xrf", settings)


def state_of(rows: int = 4, columns: int = 6, snake: bool = True, phase: str = "ended", scan: str = "scan_1") -> ScanState:
    shape = (rows, columns) if rows > 1 else (columns,)
    info = {"sample": "letter F", "energy": "18000"}
    planned = make_scan(scan, shape, axes=("samy", "samx"), snake=snake, info=info)
    return make_state(phase, scan=planned, started=1e9, ended=1e9 + 60)


def line(number: int, columns: int = 6, product: Product | None = None) -> Batch:
    """One task a line; iron counts its index, copper is half of it."""
    product = product or product_of()
    start, stop = number * columns, (number + 1) * columns
    source = make_input(f"scan_1/{number}.h5", last=columns)
    task = make_task(
        start,
        stop,
        id=task_id(product.scan, "xrf", product.settings, start, stop),
        scan=product.scan,
        pipeline=product.pipeline,
        modality="xrf",
        inputs=(source,),
        settings=product.settings,
    )
    who = Provenance(worker="w1", host="node1", job="42", attempt=1, seconds=0.5, versions={"PyMca5": "5.9.7"})
    index = np.arange(start, stop)
    arrays = {
        "area/Fe_K": index.astype("f4"),
        "area/Cu_K": (index / 2).astype("f4"),
        "frames": index.astype("u4"),
        "spectra": np.tile(index[:, None], (1, 8)).astype("f4"),
        "sum_spectrum": np.full(8, columns, "f4"),
        "energy": np.arange(8.0),
    }
    return StoreRequest(task=task, attempt=1, outcome="result", datasets=HEADERS, provenance=who), arrays


def lost(number: int, reason: str, columns: int = 6) -> Batch:
    request = line(number, columns)[0]
    empty = StoreRequest(task=request.task, attempt=3, outcome="abandoned", reason=reason)
    return empty, {}


def positions(rows: int = 4, columns: int = 6, snake: bool = True) -> Positions:
    """Half a micron a column, a micron a row, with noise that is small beside them."""
    noise = np.random.default_rng(1).normal(0, 0.01, (2, rows, columns))
    x = np.tile(np.arange(columns) * 0.5, (rows, 1)) + noise[0]
    y = np.repeat(np.arange(rows) * 1.0 - 3.0, columns).reshape(rows, columns) + noise[1]
    if snake:
        x[1::2], y[1::2] = x[1::2, ::-1].copy(), y[1::2, ::-1].copy()
    return Positions(x.reshape(-1), y.reshape(-1), "um", "um")


def content(**changes: object) -> Content:
    """Four lines of six points; the third was lost."""
    results = [line(0), line(1), lost(2, "frame file broken"), line(3)]
    document = SettingsDocument(modality="xrf", values='{"elements":["Fe","Cu"]}', calibration={"fit.cfg": Digest("cd" * 32)})
    files = {"fit.cfg": b"[peaks]\nFe = K\n", "mask": b"\x00\xff\x80"}
    made = Content(product_of(), "xrf", state_of(), results, positions(), document, files)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]
