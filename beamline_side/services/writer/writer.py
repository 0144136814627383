"""The writer: copies the results of the sink into result files.

Theory: the sink's record is the truth and every file is derived from it, so nothing here has to survive: after a SIGKILL the
sink tells everything again, live files are thrown away and rebuilt, and what was written of the same scan, settings and length
is recognised, unless results were corrected since: then it is written again. While a scan runs, its results are appended to a
live file; when the scan has ended and every index has a verdict (and the positions of the maps are complete too), the final
files are written from the sink's results by the writers that the pipeline file names; the record of them is the commit. A disk
that is nearly full is noticed before HDF5 runs into it; a write that fails in HDF5 all the same ends the process (`Broken`),
because that library does not recover from it.

Clock policy: a product that could not be written rests on the monotonic clock (`troubles`); wall time goes only into files.
Invariants: one product's trouble never stops another; a file is there as a whole or not at all; the sentence of every
trouble is in the heartbeat (`why`) until it is over.
"""

from collections.abc import Callable, Mapping

import structlog

from beamline_side.services.writer.filed_scans import FiledScans
from beamline_side.services.writer.sink_reader import SinkReader
from beamline_side.services.writer.troubles import Troubles, WritersFailed
from beamline_side.writers import names
from beamline_side.writers.files import ProductFiles, registered, sentence
from beamline_side.writers.maps import as_told
from beamline_side.writers.product import Content
from beamline_side.writers.written import unwritten
from beamtide import clock
from beamtide.client.shown import shown
from beamtide.component.heartbeat import ComponentHeartbeat
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, Broken, NoAnswer
from beamtide.messages.base import Digest, ScanId
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import Product, ProductState
from beamtide.pump import Caller
from beamtide.security.guard import identity_of

START = 10.0
"""Seconds without an answer that are not reported: services that start together need a moment to find each other."""
BATCHES = 4
"""Batches of results of one product before it is the turn of the next."""


class Stopped(Exception):
    """The writer was asked to stop in the middle of a file."""


class Writer:
    """Follows all products; `step` is one round."""

    def __init__(self, deployment: Deployment, caller: Caller, pulse: Callable[[], None] = lambda: None) -> None:
        self._processed, self._pipelines = deployment.site.roots.processed, deployment.pipelines
        self._deployment = deployment
        self._settings: dict[tuple[tuple[str, int], ...], dict[str, Digest]] = {}
        """The present settings of each pipeline, by the rounds of a scan."""
        self._shown: set[Product] = set()
        """Products that have the plain names."""
        self._reader, self._pulse = SinkReader(deployment, caller, pulse), pulse
        self._filed = FiledScans(deployment, caller)
        self._log = structlog.get_logger().bind(component="writer")
        self._seen = self._scans_seen = self._written = 0
        self._scans: dict[ScanId, ScanState] = {}
        self._products: dict[Product, ProductState] = {}
        self._files: dict[Product, ProductFiles] = {}
        self._done: dict[Product, tuple[ScanState, int, str]] = {}
        self._troubles = Troubles()
        self._silent = self._told = ""
        self._answered = clock.monotonic()

    def progress(self) -> dict[str, float]:
        """Return the numbers that `beamtide topology` shows."""
        numbers = {"written": self._written, "finished": len(self._done), "open": len(self._open_products()), "seen": self._seen}
        return {name: float(number) for name, number in numbers.items()}

    def why(self) -> str:
        """Return why nothing moves, in one sentence; "" while things move or there is nothing to do."""
        return self._silent or self._troubles.why()

    def step(self) -> None:
        """Ask for changes and write them; a service that does not answer is reported, and is not an error."""
        try:
            self._learn()
            for product in self._open_products():
                self._pulse()
                if not self._troubles.rests(product):
                    self._attempt(product)
            for product, state in self._products.items():
                if state.filed and product not in self._shown:
                    self._show_filed(product)
            self._filed.step(self._products, self._done.keys() - self._troubles.refused.keys())
            self._silent = self._told = ""
            self._answered = clock.monotonic()
        except NoAnswer as error:
            self._silent = str(error)
            if clock.monotonic() > self._answered + START and self._told != self._silent:
                self._log.warning("waiting", reason=self._silent)
                self._told = self._silent

    def close(self) -> None:
        """Delete the live files of unfinished products; the next writer makes them again."""
        for files in self._files.values():
            files.drop()
        self._files.clear()

    def _open_products(self) -> list[Product]:
        writing = {name for name, pipeline in self._pipelines.items() if pipeline.write}
        there = [product for product, state in self._products.items() if product.pipeline in writing and not state.filed]
        return [product for product in there if product not in self._done]

    def _learn(self) -> None:
        news = self._reader.products(self._seen)
        if news.version < self._seen:  # the sink started empty: so do we
            self.close()
            self._products.clear()
            self._done.clear()
            self._troubles.forget()
            self._seen = 0
            return
        for state in news.products:
            known = self._products.get(state.product, state)
            if known.corrections != state.corrections and state.product in self._files:
                self._files.pop(state.product).drop()  # the live file has holes where there are results now: make it again
            self._products[state.product] = state
        self._seen = news.version
        scans = self._reader.scans(self._scans_seen)
        self._scans_seen = scans.version if scans.version >= self._scans_seen else 0
        self._scans.update({state.scan.id: state for state in scans.scans})
        for product, (then, *drawn) in list(self._done.items()):
            now = self._scans[product.scan]
            if (now.started, now.points) != (then.started, then.points) or drawn != [*self._drawn_with(product)]:
                self._write_again(product, now)

    def _write_again(self, product: Product, scan: ScanState) -> None:
        """Unless it is filed, take a product up again that was measured again, corrected, or has other positions."""
        if self._reader.is_filed(product):
            self._done[product] = scan, *self._drawn_with(product)
        else:
            del self._done[product]
            self._troubles.refuse(product, {})

    def _attempt(self, product: Product) -> None:
        """Advance one product; an error is noted, and the next attempt follows after a rest."""
        try:
            waits_for = self._advance(product)
        except (NoAnswer, Stopped, Broken):
            raise
        except WritersFailed as error:
            self._troubles.complain(product, error)
        except Exception as error:  # one product's trouble must not stop the others
            if product in self._files:
                self._files.pop(product).drop()
            self._troubles.complain(product, error)
        else:
            self._troubles.waits(product, waits_for)

    def _advance(self, product: Product) -> str:
        """Append to the live file or write the final file; return what the product waits for, or ""."""
        state, pipeline = self._products[product], self._pipelines[product.pipeline]
        scan = as_told(self._scans.get(product.scan), pipeline.snake)
        if scan is None:
            return f"{product.pipeline} of {product.scan} waits: the metadata server does not know this scan."
        ended = scan.phase == "ended"
        formats = self._pipelines[product.pipeline].write
        if ended and not unwritten(self._processed, product, scan, formats, self._drawn_with(product)):
            self._show(product)
            self._finish(product, scan)
            return ""
        source = self._newest(product.scan, name := pipeline.positions or "")
        settled = not name or (source is not None and source.complete >= scan.points)
        if ended and state.complete >= scan.points and settled:
            self._write(product, scan, source)
            return ""
        self._follow(self._files_of(product, scan), state)
        late = ended and state.complete >= scan.points
        return f"{product.pipeline} of {product.scan} waits for the positions of {name}." if late else ""

    def _write(self, product: Product, scan: ScanState, source: ProductState | None) -> None:
        document, calibration = self._reader.explained(product)
        positions = self._reader.positions(source, scan.points) if source is not None else None
        results = self._reader.all_results(product, scan.points)
        modality = self._products[product].modality
        drawn = self._drawn_with(product)
        self._show(product)
        content = Content(product, modality, scan, results, positions, document, calibration, *drawn)
        outcome = self._files_of(product, scan).write(content)
        self._troubles.refuse(product, outcome.refused)
        if outcome.failed:
            raise WritersFailed("; ".join(f"as {name}: {sentence(error)}" for name, error in outcome.failed.items()))
        self._written += 1
        self._log.info("written", scan=product.scan, pipeline=product.pipeline, file=str(outcome.result))
        self._finish(product, scan)

    def _follow(self, files: ProductFiles, state: ProductState) -> None:
        """Append new results to the live file, a few batches at a time; the cursor skips and repeats none."""
        for _ in range(BATCHES):
            if not files.grows or files.cursor >= state.complete:
                return
            found, following = self._reader.results(files.product, files.cursor)
            if not found:
                return
            files.append(found, following)
            self._pulse()

    def _files_of(self, product: Product, scan: ScanState) -> ProductFiles:
        if product not in self._files:
            taken = frozenset(files.live for files in self._files.values())
            formats = self._pipelines[product.pipeline].write
            self._files[product] = ProductFiles(self._processed, product, scan, formats, taken)
        return self._files[product]

    def _drawn_with(self, product: Product) -> tuple[int, str]:
        """Return how often a product and the positions of its maps were corrected, and the settings of the positions."""
        source = self._newest(product.scan, self._pipelines[product.pipeline].positions or "")
        if source is None:
            return self._products[product].corrections, ""
        return self._products[product].corrections + source.corrections, source.product.settings

    def _newest(self, scan: ScanId, pipeline: str) -> ProductState | None:
        """Return a pipeline's product with the present settings; while there is none, the one that changed last."""
        found = [state for product, state in self._products.items() if (product.scan, product.pipeline) == (scan, pipeline)]
        return shown(found, self._now(scan)).get(pipeline)

    def _now(self, scan: ScanId) -> dict[str, Digest]:
        """Return the settings that the pipeline files ask for now, for a scan."""
        rounds = self._scans[scan].rounds if scan in self._scans else {}
        key = tuple(sorted(rounds.items()))
        if key not in self._settings:
            self._settings[key] = _settings_now(self._deployment, rounds)
        return self._settings[key]

    def _show(self, product: Product) -> None:
        """Give a product the plain names if it is the one that its pipeline file asks for now."""
        if self._now(product.scan).get(product.pipeline) == product.settings:
            names.show(self._processed, product)
        self._shown.add(product)

    def _show_filed(self, product: Product) -> None:
        try:
            self._show(product)
        except Exception as error:  # as for `_attempt`
            self._shown.add(product)
            self._troubles.complain(product, error)

    def _finish(self, product: Product, scan: ScanState) -> None:
        self._files_of(product, scan).drop()
        del self._files[product]
        self._done[product] = scan, *self._drawn_with(product)


def _settings_now(deployment: Deployment, rounds: Mapping[str, int]) -> dict[str, Digest]:
    try:
        return site.settings_of(deployment, rounds)
    except BadInput:  # the source reports it; use the product that changed last
        return {}


def run(deployment: Deployment, stop: Callable[[], bool]) -> None:
    """Follow the sink until `stop()`. BadInput, at once: a writer that a pipeline file names is not installed."""
    for name in sorted({name for pipeline in deployment.pipelines.values() for name in pipeline.write}):
        registered(name)
    with Caller(identity_of(deployment, "component")) as caller:
        presence = ComponentHeartbeat(deployment, "writer", caller)

        def pulse() -> None:
            presence.beat(writer.progress(), writer.why())
            if stop():
                raise Stopped

        writer = Writer(deployment, caller, pulse)
        try:
            while True:
                pulse()
                writer.step()
        except Stopped:
            return
        finally:
            writer.close()
