"""The reason of a job that failed is the last line of its log that says something."""

import pathlib

import pytest

from cluster_side.scaling.launchers import job_log
from cluster_side.scaling.launchers.base import job_name
from tests.system.deployments import real_site

APPTAINER = "INFO   :   or compile with ./mconfig\n\x1b[91mERROR  : Failed to create user namespace: too many\n\x1b[0m"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one\ntwo\n\n", "two"),
        (APPTAINER, "ERROR  : Failed to create user namespace: too many"),
        ("beamtide work: it is ours\nsrun: error: task 0 exited\n", "beamtide work: it is ours"),
        ("a bell\x07 and \x1b]0;a title\x07\n", "a bell  and  ]0;a title"),
        ("", ""),
    ],
)
def test_the_last_line_that_says_something(tmp_path: pathlib.Path, text: str, reason: str) -> None:
    deployment = real_site(tmp_path / "site", pathlib.Path("/raw"))
    (tmp_path / f"{job_name(deployment, 'xrf')}-7.log").write_text(text)
    assert job_log.last_line(deployment, tmp_path, "7") == reason
    assert job_log.last_line(deployment, tmp_path, "8") == "", "no such log"
