"""What is wrong with products, in sentences, and when to try each of them again.

Clock policy: a product that could not be written rests for `REST` seconds on the monotonic clock.
"""

import structlog

from beamtide import clock
from beamtide.errors import BeamtideError
from beamtide.messages.results import Product

REST = 5.0
"""Seconds until a product that could not be written is tried again."""


class WritersFailed(BeamtideError):
    """Some writers of a product failed; the others have done their work."""


class Troubles:
    """The sentences, by product; `refused` products are done but for what can never be."""

    def __init__(self) -> None:
        self._log = structlog.get_logger().bind(component="writer")
        self._resting: dict[Product, tuple[str, float]] = {}
        self.refused: dict[Product, str] = {}

    def why(self) -> str:
        """Return the first sentence; "" if nothing is wrong."""
        return next((sentence for sentence, _ in self._resting.values()), "") or next(iter(self.refused.values()), "")

    def rests(self, product: Product) -> bool:
        """Whether it is too early to try a product again."""
        return self._resting.get(product, ("", 0.0))[1] > clock.monotonic()

    def waits(self, product: Product, sentence: str) -> None:
        """Note what a product waits for; "" for nothing."""
        self._resting.pop(product, None)
        if sentence:
            self._resting[product] = (sentence, 0.0)

    def complain(self, product: Product, error: Exception) -> None:
        """Note what went wrong with a product; it is tried again later."""
        foreseen = isinstance(error, BeamtideError | OSError)
        what = str(error) if foreseen else f"{type(error).__name__}: {error}"
        sentence = f"{product.pipeline} of {product.scan} is not written: {what} Trying again every {REST:.0f} s."
        if self._resting.get(product, ("", 0.0))[0] != sentence:
            facts = {"scan": product.scan, "pipeline": product.pipeline, "reason": what}
            self._log.error("not written", **facts, exc_info=None if foreseen else error)
        self._resting[product] = (sentence, clock.monotonic() + REST)

    def refuse(self, product: Product, reasons: dict[str, str]) -> None:
        """Note in which formats a product cannot be written; they are not tried again while it stays as it is."""
        self.refused.pop(product, None)
        if reasons:
            said = "; ".join(f"as {name}: {reason}" for name, reason in reasons.items())
            self.refused[product] = f"{product.pipeline} of {product.scan} cannot be written {said}"
            self._log.error("cannot be written", scan=product.scan, pipeline=product.pipeline, reason=said)

    def forget(self) -> None:
        """Forget everything."""
        self._resting.clear()
        self.refused.clear()
