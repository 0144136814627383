"""A real image, built here from a local root folder, and jobs that run in it."""

import json
import pathlib
import pwd
import shlex
import subprocess

import pytest
from typer.testing import CliRunner

from beamline_side.hosts import one_scan
from beamtide.cli import main
from beamtide.config import site
from beamtide.config.models import Deployment
from cluster_side.images import admission, checks, enter, runtime
from tests.containers.conftest import Image
from tests.system.deployments import REAL_SCAN, real_site

pytestmark = pytest.mark.long


def with_image(deployment: Deployment, **container: object) -> Deployment:
    """Write the container section into the site file, and load it again."""
    file = deployment.file
    file.write_text(file.read_text() + f"container: {json.dumps(container, default=str)}\n")
    return site.load(file)


@pytest.fixture
def deployment(tmp_path: pathlib.Path, test_data: pathlib.Path, worker_image: Image) -> Deployment:
    plain = real_site(tmp_path / "site", test_data)
    plain.site.state.mkdir(mode=0o700)
    return with_image(plain, runtime="apptainer", image=worker_image.path, digest=worker_image.digest, stage=tmp_path / "node")


def as_a_job(deployment: Deployment, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", enter.script(deployment, argv)], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_image_is_whole_and_says_what_is_in_it(worker_image: Image) -> None:
    program = runtime.detect()
    assert not [text for text in checks.image(program, worker_image.path).values() if text]
    result = CliRunner().invoke(main.build(), ["image", "show", str(worker_image.path), "--json"])
    told = json.loads(result.stdout)
    assert told["digest"] == worker_image.digest
    assert told["labels"]["org.beamtide.image"] == "worker-cpu"
    assert told["megabytes"] < 600


def test_a_measured_scan_is_processed_inside_of_it(deployment: Deployment) -> None:
    outcome = one_scan.run_scan(deployment, REAL_SCAN, lambda _: None)
    rows = outcome.last.pipelines
    assert {name: (row.done, row.abandoned) for name, row in rows.items()} == {"encoders": (11, 0), "xrf": (11, 0)}
    text = next(path for path in outcome.files if path.name == "xrf.h5").read_bytes()
    assert deployment.site.container.digest.encode() in text  # every result says in which image it was made


def test_a_job_sees_what_it_needs_and_no_more(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SECRET", "not for workers")
    raw = shlex.quote(str(deployment.site.roots.raw))
    look = f"echo job=$SLURM_JOB_ID secret=$SECRET home=$(ls -A ~ | grep -c '^.cache$'); touch {raw}/x; ls {raw}"
    done = as_a_job(deployment, "sh", "-c", look)
    assert "job=77 secret= home=0" in done.stdout
    assert "Read-only file system" in done.stderr
    assert "xrf" in done.stdout


def test_many_jobs_of_a_node_copy_the_image_once(deployment: Deployment, tmp_path: pathlib.Path) -> None:
    text = enter.script(deployment, ("true",))
    jobs = [subprocess.Popen(["bash", "-c", text]) for _ in range(6)]
    assert [job.wait(120) for job in jobs] == [0] * 6
    copies = list((tmp_path / "node").glob("*.sif"))
    assert len(copies) == 1
    assert copies[0].stat().st_nlink == 1
    assert not list((tmp_path / "node").glob("*.part"))


def test_many_jobs_of_a_node_unpack_the_image_once(deployment: Deployment, tmp_path: pathlib.Path) -> None:
    container = deployment.site.container.model_copy(update={"unpack": True})
    unpacked = deployment.model_copy(update={"site": deployment.site.model_copy(update={"container": container})})
    inside = tmp_path / "node" / container.digest.removeprefix("sha256:")
    look = "touch /usr/x; exec python3 -c 'import cluster_side; print(cluster_side.__file__)'"
    text = enter.script(unpacked, ("sh", "-c", look))
    jobs = [subprocess.Popen(["bash", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [job.communicate(timeout=120) for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 3, told
    for said, wrong in told:
        assert (inside / said.strip().lstrip("/")).is_file()
        assert "Read-only file system" in wrong
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == sorted(["lock", inside.name, f"{inside.name}.ok"])


def test_another_image_than_the_pinned_one_is_refused(deployment: Deployment, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other.sif"
    other.write_bytes(deployment.site.container.image.read_bytes()[:-1] + b"?")
    changed = deployment.site.container.model_copy(update={"image": other})
    wrong = deployment.model_copy(update={"site": deployment.site.model_copy(update={"container": changed})})
    assert "the site file pins" in admission.problems(wrong, on_nodes=False)[0]
    done = as_a_job(wrong, "true")
    assert done.returncode == enter.IMAGE_CODES[0]
    assert "has not the digest that the site file pins" in done.stderr
    assert not list((tmp_path / "node").glob("*.sif*"))


def test_a_truncated_image_is_named(worker_image: Image, tmp_path: pathlib.Path) -> None:
    cut = tmp_path / "cut.sif"
    cut.write_bytes(worker_image.path.read_bytes()[:100_000])
    result = CliRunner().invoke(main.build(), ["image", "check", str(cut)])
    assert "is not a whole image" in str(result.exception)


def test_what_a_node_lacks_ends_its_job_with_one_sentence(deployment: Deployment, tmp_path: pathlib.Path) -> None:
    nodes = {"raw": tmp_path / "not mounted"}
    container = deployment.site.container.model_copy(update={"nodes": nodes})
    lost = deployment.model_copy(update={"site": deployment.site.model_copy(update={"container": container})})
    done = as_a_job(lost, "true")
    assert (done.returncode, done.stderr.count("\n")) == (enter.IMAGE_CODES[0], 1)
    assert f"cannot read {tmp_path}/not mounted (which stands for {deployment.site.roots.raw})" in done.stderr


def test_a_node_without_namespaces_is_told(deployment: Deployment, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(enter.script(deployment, ("true",)))
    who = pwd.getpwnam("nobody").pw_uid  # Apptainer looks the user up
    nobody = ["unshare", "--user", f"--map-user={who}", "--keep-caps"]  # one who may switch namespaces off, for itself
    if subprocess.run([*nobody, "true"], capture_output=True, check=False).returncode:
        pytest.skip("A NODE WITHOUT NAMESPACES IS NOT TESTED: this machine gives us none to switch off")
    none = f"echo 0 >/proc/sys/user/max_user_namespaces; exec bash {shlex.quote(str(script))}"
    done = subprocess.run([*nobody, "bash", "-c", none], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == enter.IMAGE_CODES[0], done.stderr
    assert "does not start here: " in done.stderr
    assert "maximum number of user namespaces exceeded" in done.stderr


def test_a_node_where_the_state_cannot_be_written_is_told(deployment: Deployment, tmp_path: pathlib.Path) -> None:
    script, state = tmp_path / "job.sh", tmp_path / "read-only"
    state.mkdir()
    container = deployment.site.container.model_copy(update={"nodes": {"state": state}})
    lost = deployment.model_copy(update={"site": deployment.site.model_copy(update={"container": container})})
    script.write_text(enter.script(lost, ("true",)))
    mounted = f"mount -t tmpfs -o ro none {shlex.quote(str(state))}; exec bash {shlex.quote(str(script))}"
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", mounted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (enter.IMAGE_CODES[0], 1), done.stderr
    assert f"cannot write to {state} (which stands for {deployment.site.state})" in done.stderr


def test_an_image_without_mpi_is_told(worker_image: Image) -> None:
    assert "has no mpirun" in checks.mpi(runtime.detect(), worker_image.path)["MPI in the image"]
