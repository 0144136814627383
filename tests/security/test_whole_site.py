"""A whole scan with keys on every connection."""

import pathlib

import pytest

from beamline_side.hosts import one_scan
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.errors import BadInput
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from tests.ports import free_ports
from tests.security.sites import site_keys
from tests.system.deployments import REAL_SCAN, real_site

pytestmark = [pytest.mark.system, pytest.mark.long]


def test_a_scan_with_keys(tmp_path: pathlib.Path, test_data: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = real_site(tmp_path / "site", test_data)
    door = site_keys(plain.file.parent)
    first = free_ports(32)
    plain.file.write_text(plain.file.read_text() + f"network: {{bind: 127.0.0.1, ports: {first}-{first + 31}, keys: keys}}\n")
    deployment = site.load(plain.file)
    refused: list[str] = []

    def as_viewer(_: object) -> None:
        monkeypatch.setenv("BEAMTIDE_KEY", str(door.folder / "viewer.key"))
        with Client(deployment) as viewer:
            assert viewer.topology()
            with pytest.raises(BadInput) as error:
                viewer.scan_started(Scan(id=ScanId("scan_00099"), shape=(1,)))
            refused.append(str(error.value))
        monkeypatch.delenv("BEAMTIDE_KEY")

    outcome = one_scan.run_scan(deployment, REAL_SCAN, as_viewer)
    rows = outcome.last.pipelines
    assert {name: (row.done, row.abandoned, row.doubled) for name, row in rows.items()} == {
        "encoders": (11, 0, 0),
        "xrf": (11, 0, 0),
    }
    assert set(refused) == {"your key viewer is for a viewer, who may not send ScanStarted"}
