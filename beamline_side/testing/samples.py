"""Small finished products to try writers on, and what should be read of them again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_side.writers.product import Batch, Content
from beamtide.messages.base import Digest, PipelineName, ScanId, TaskId
from beamtide.messages.metadata import Scan, ScanState, SettingsDocument
from beamtide.messages.results import DatasetHeader, Product, Provenance, StoreRequest
from beamtide.messages.tasks import InputFile, Task

SETTINGS = Digest("5e" * 32)
HEADERS = (
    DatasetHeader(name="area/Fe_K", units="counts", long_name="Fe K"),
    DatasetHeader(name="area/Fe.K", units="counts"),
    DatasetHeader(name="shift of α, 1st ..", units="µm"),
    DatasetHeader(name="frames", units="1"),
    DatasetHeader(name="spectra", units="counts"),
    DatasetHeader(name="sum", units="counts", per="scan", merge="sum"),
)
CHANNELS = 5


@dataclass(frozen=True, slots=True)
class WriterSample:
    """A scan of one task per line; `holes` are the lines without a result, `corrections` how often one was filled later."""

    name: str
    scan: str
    shape: tuple[int, ...]
    snake: bool = False
    holes: tuple[int, ...] = ()
    corrections: int = 0
    offset: float = 0.0
    """Added to all values, to tell two versions apart."""
    info: Mapping[str, str] = field(default_factory=lambda: {"title": "Größe – test", "sample": "试样"})

    def content(self) -> Content:
        """Return it as the writer service has it."""
        lines = self.shape[0] if len(self.shape) > 1 else 1
        batches = [self._lost(line) if line in self.holes else self._line(line) for line in range(lines)]
        document = SettingsDocument(modality="sample", values='{"gain":2.5}', calibration={"mask": Digest("ab" * 32)})
        explained = {"document": document, "files": {"mask": b"\x00\xff\n"}, "corrections": self.corrections}
        return Content(self.product, "sample", self.state, batches, **explained)  # type: ignore[arg-type]

    @property
    def product(self) -> Product:
        """Scan, pipeline and settings."""
        return Product(scan=ScanId(self.scan), pipeline=PipelineName("sample"), settings=SETTINGS)

    @property
    def state(self) -> ScanState:
        """The scan, which has ended."""
        scan = Scan(
            id=ScanId(self.scan), shape=self.shape, axes=("y", "x")[-len(self.shape) :], snake=self.snake, info={**self.info}
        )
        return ScanState(scan=scan, phase="ended", points=int(np.prod(self.shape)), version=1, started=1e9, ended=1e9 + 60)

    def rows(self) -> dict[str, NDArray[Any]]:
        """Return each dataset with one row per index, NaN (for integers 0) in holes."""
        found = {name: np.concatenate([self._arrays(line)[name] for line in range(self._lines)]) for name in self._names}
        for line in self.holes:
            for values in found.values():
                values[line * self.shape[-1] : (line + 1) * self.shape[-1]] = np.nan if values.dtype.kind == "f" else 0
        return found

    def maps(self) -> dict[str, NDArray[Any]]:
        """Return each dataset with one number per index in the shape of the scan, NaN in holes."""
        found = {}
        for name, values in self.rows().items():
            if values.ndim == 1:
                grid = values.astype(float).reshape(self.shape)
                if len(self.shape) > 1:
                    grid[list(self.holes)] = np.nan
                    grid[1::2] = grid[1::2, ::-1] if self.snake else grid[1::2]
                found[name] = grid
        return found

    @property
    def _lines(self) -> int:
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(header.name for header in HEADERS if header.per == "index")

    def _task(self, line: int) -> Task:
        start, stop = line * self.shape[-1], (line + 1) * self.shape[-1]
        source = InputFile(root="raw", path=f"{self.scan}/{line}.h5", format="hdf5", first=0, last=stop - start)
        return Task(
            id=TaskId(f"{self.scan}/sample/{SETTINGS[:8]}/{start:06d}-{stop:06d}"),
            scan=ScanId(self.scan),
            pipeline=PipelineName("sample"),
            modality="sample",
            start=start,
            stop=stop,
            inputs=(source,),
            settings=SETTINGS,
        )

    def _arrays(self, line: int) -> dict[str, NDArray[Any]]:
        index = np.arange(line * self.shape[-1], (line + 1) * self.shape[-1])
        per_index = [index * 1.5, index / 7, -index / 3, index + 1, np.add.outer(index, np.arange(CHANNELS))]
        kinds = ("f4", "f8", "f8", "u4", "f4")
        found = {
            name: (values + self.offset).astype(kind) for name, values, kind in zip(self._names, per_index, kinds, strict=True)
        }
        return {**found, "sum": np.full(CHANNELS, float(len(index)))}

    def _line(self, line: int) -> Batch:
        who = Provenance(worker="w", host="h", job="j", attempt=1, seconds=0.5, versions={"numpy": np.__version__})
        done = StoreRequest(task=self._task(line), attempt=1, outcome="result", datasets=HEADERS, provenance=who)
        return done, self._arrays(line)

    def _lost(self, line: int) -> Batch:
        return StoreRequest(task=self._task(line), attempt=1, outcome="abandoned", reason="the frame file is broken – 断"), {}
