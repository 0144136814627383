"""Settings and calibration files in the cache of a worker: believed as long as they have the digest they are kept under."""

import pathlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from beamtide.config import settings
from beamtide.errors import BadInput
from beamtide.messages.base import Message
from beamtide.messages.metadata import File, GetFileRequest, GetSettingsRequest, SettingsAnswer, SettingsDocument
from cluster_side.modalities.base import Modality, SettingsModel
from cluster_side.worker.task import ready_kernel

CONTENT = b"the right numbers"
DOCUMENT = SettingsDocument(modality="toy", values="{}", calibration={"cfg": settings.digest_of_bytes(CONTENT)})
PREPARED = settings.PreparedSettings(DOCUMENT, settings.digest_of(DOCUMENT), {"cfg": CONTENT})


class Reading(Modality):
    """A modality whose kernel says what its calibration file holds."""

    def load(self, values: Any, calibration: Any, *keep: Any) -> Any:
        return lambda frames: calibration["cfg"].read_bytes()


TOY = Reading("toy", SettingsModel, lambda _: (), "nowhere:load", needs=("cfg",))


@dataclass
class Server:
    """A metadata server that has something to say."""

    document: SettingsDocument = DOCUMENT
    content: bytes = CONTENT
    asked: list[type[Message]] = field(default_factory=list)

    def ask(self, address: str, message: Message, expect: type[Message], patience: float) -> Message:
        self.asked.append(type(message))
        return SettingsAnswer(document=self.document) if expect is SettingsAnswer else File(name="cfg", content=self.content)


def obtain(cache: pathlib.Path, server: Server) -> Any:
    return ready_kernel.obtain(PREPARED.digest, cache, (server, "metadata"), lambda name: TOY).kernel({})  # type: ignore[arg-type]


def kept(cache: pathlib.Path) -> pathlib.Path:
    return cache / DOCUMENT.calibration["cfg"] / "cfg"


def test_what_is_in_the_cache_is_not_fetched(tmp_path: pathlib.Path) -> None:
    ready_kernel.prepare(PREPARED, tmp_path, lambda name: TOY)
    assert obtain(tmp_path, server := Server()) == CONTENT
    assert server.asked == []


def test_what_is_missing_or_damaged_is_fetched_again(tmp_path: pathlib.Path) -> None:
    assert obtain(tmp_path, server := Server()) == CONTENT
    assert server.asked == [GetSettingsRequest, GetFileRequest]
    kept(tmp_path).write_bytes(b"the wrong numbers")
    assert obtain(tmp_path, server := Server()) == CONTENT
    assert server.asked == [GetFileRequest]
    document = tmp_path / f"{PREPARED.digest}.json"
    for damaged in (document.read_bytes().replace(b"toy", b"tox"), b"no JSON"):
        document.write_bytes(damaged)
        assert obtain(tmp_path, server := Server()) == CONTENT
        assert server.asked == [GetSettingsRequest]


def test_what_comes_with_another_digest_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="calibration file cfg that came from the metadata server is not the one with digest"):
        obtain(tmp_path / "a", Server(content=b"other numbers"))
    with pytest.raises(BadInput, match="settings that came from the metadata server do not have the digest"):
        obtain(tmp_path / "b", Server(document=SettingsDocument(modality="toy", values='{"a":1}')))


class Preparing(Modality):
    """A modality whose kernel returns what was prepared."""

    def load(self, values: Any, calibration: Any, keep: Any = None) -> Any:
        made = keep(lambda: {"layout": np.array([self.layout])})
        return lambda frames: dict(made)


def test_arrays_of_an_older_layout_are_not_taken_up(tmp_path: pathlib.Path) -> None:
    """As after an update in place: same settings, same versions of everything else, other arrays."""
    for layout in (1, 2, 1):
        toy = Preparing("toy", SettingsModel, lambda _: (), "nowhere:load", needs=("cfg",), layout=layout)
        assert ready_kernel.prepare(PREPARED, tmp_path, lambda name, toy=toy: toy).kernel({})["layout"] == layout  # type: ignore[misc]
    assert len(list((tmp_path / "prepared").glob("*/index.json"))) == 2
