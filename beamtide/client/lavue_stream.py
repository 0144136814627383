"""Images for the viewer Lavue: what is sent over its ZMQ stream, and when. Pure.

Theory: Lavue takes one message per refresh (0.2 s), oldest first, so a faster stream lags more and more. So an image that changed
is sent at most twice a second, and one that did not change every other second, for viewers that have just selected it; the list
of images is sent when it changes, and every five seconds for late joiners. Lavue redraws an image only if its name changed, so
names count up. The first axis on the wire is the horizontal one, and buffers are contiguous. Metadata are always JSON: Lavue
unpickles everything else.

Clock policy: `now` in seconds of any monotonic clock.
Source: lavue 3.16, `ZMQSource` (format "ZMQ Stream"), and tests with it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEW, OLD, LIST = 0.5, 2.0, 5.0
"""Seconds between two messages of an image that changed, of one that did not, and of the list."""
END = b"JSON"


@dataclass(frozen=True, slots=True)
class Picture:
    """Values (row, column), or (column,) for a curve; NaN where there is none."""

    values: NDArray[Any]
    version: int
    """Differs when the values do."""
    title: str
    labels: tuple[str, str, str, str] = ("column", "line", "", "")
    """Of the horizontal and the vertical axis, and their units."""
    scales: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Where both begin, and their steps."""


def topic_of(text: str) -> str:
    """Return a name that Lavue can use: it cannot show names with a slash, connect to names with a colon, or take a comma."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def frame(topic: str, picture: Picture, number: int) -> list[bytes]:
    """Return the message with an image."""
    values = np.ascontiguousarray(np.asarray(picture.values, np.float32).T)
    facts = {
        "name": f"{picture.title} #{number}",
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "axislabels": list(picture.labels),
        "axisscales": list(picture.scales),
    }
    return [topic.encode(), values.tobytes(), json.dumps(facts).encode(), END]


def announcement(topics: list[str]) -> list[bytes]:
    """Return the message with the list of images."""
    return [b"datasources", json.dumps({"datasources": topics}).encode(), END]


@dataclass(slots=True)
class Programme:
    """Decides which messages are sent when."""

    sent: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Topic -> version, and when."""
    listed: tuple[list[str], float] = field(default_factory=lambda: ([], -LIST))
    number: int = 0

    def due(self, pictures: Mapping[str, Picture], now: float) -> list[list[bytes]]:
        """Return the messages that are due now."""
        messages, topics = list[list[bytes]](), sorted(pictures)
        if topics != self.listed[0] or now - self.listed[1] >= LIST:
            messages.append(announcement(topics))
            self.listed = topics, now
        for topic in topics:
            picture = pictures[topic]
            version, at = self.sent.get(topic, (picture.version - 1, now - OLD))
            if now - at >= (OLD if version == picture.version else NEW):
                self.number += 1
                messages.append(frame(topic, picture, self.number))
                self.sent[topic] = picture.version, now
        return messages
