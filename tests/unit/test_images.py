"""Definitions, lock files, and the lines by which a job gets into its image."""

import pathlib
import subprocess

import pytest

from beamtide.config import site
from beamtide.errors import BadInput
from cluster_side.images import build as builder
from cluster_side.images import checks, definition, enter
from cluster_side.images.definition import Base
from cluster_side.images.runtime import Runtime
from tests.system.deployments import real_site

ROOT = pathlib.Path(__file__).parents[2]
LOCK = "numpy==2.1.0 \\\n    --hash=sha256:aa\nPyMca5==5.9.4 \\\n    --hash=sha256:bb\n"
DEFINITION = """Bootstrap: {{ bootstrap }}
From: {{ base }}

%arguments
    bootstrap=docker
    base=debian

%post
    x {{ lock }}
"""
DIGEST = "sha256:" + "0" * 64


def test_a_definition_is_filled_whole() -> None:
    values = {"bootstrap": "localimage", "base": "/a/b", "lock": "/l"}
    assert definition.filled(DEFINITION, values) == "Bootstrap: localimage\nFrom: /a/b\n\n%post\n    x /l\n"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bootstrap": "docker", "base": "debian"}, "no value for lock"),
        ({"bootstrap": "docker", "base": "a; rm -rf ~", "lock": "l"}, "base of the image is 'a; rm -rf ~'"),
    ],
)
def test_a_definition_that_cannot_be_filled_is_refused(values: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        definition.filled(DEFINITION, values)


@pytest.mark.parametrize(
    ("text", "base"),
    [("", Base("docker", "debian")), ("/some/root", Base("localimage", "/some/root")), ("docker:a/b:1", Base("docker", "a/b:1"))],
)
def test_a_base_is_what_a_person_names(text: str, base: Base) -> None:
    assert definition.base_of(text, definition.default_base(DEFINITION)) == base


def test_a_digest_names_versions_whatever_their_order_and_comments() -> None:
    one, other = LOCK.split("PyMca5")
    turned = f"# made by hand\nPyMca5{other}{one}"
    assert definition.pins(LOCK) == ("numpy==2.1.0", "PyMca5==5.9.4")
    assert definition.digest_of(turned) == definition.digest_of(LOCK) != definition.digest_of(LOCK.replace("2.1.0", "2.1.1"))


def test_a_lock_that_pins_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="make locks"):
        definition.pins("# empty\n")


@pytest.mark.parametrize("kind", definition.KINDS)
def test_every_image_has_a_definition_and_a_lock_with_hashes(kind: str) -> None:
    text = (ROOT / f"containers/{kind}.def").read_text()
    lock = (ROOT / f"containers/locks/{kind}.lock").read_text()
    names = {pin.partition("==")[0] for pin in definition.pins(lock)}
    assert {"numpy", "h5py", "pyzmq", "msgspec"} <= names
    assert lock.count("--hash=sha256:") >= len(names)
    values = dict.fromkeys(("bootstrap", "base", "wheels", "recipe", "lock", "version", "commit", "digest", "plugins"), "x")
    assert "{{" not in definition.filled(text, values)
    assert f"org.beamtide.image {kind}" in text


def test_an_unknown_image_is_refused_before_anything_is_made(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="there are: worker-cpu"):
        builder.build(builder.BuildOrder("worker", tmp_path / "x.sif"), print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inside", "outside", "same"),
    [
        ("mpirun (Open MPI) 4.1.4", "mpirun (Open MPI) 4.1.6", True),
        ("mpirun (Open MPI) 4.1.4", "mpirun (Open MPI) 5.0.3", False),
        ("HYDRA build details:\n MPICH Version: 4.2.0", "mpirun (Open MPI) 4.1.4", False),
        ("HYDRA build details:\n MPICH Version: 4.2.0", "MPICH Version: 4.1.2", True),
    ],
)
def test_mpi_inside_and_outside_are_compared(inside: str, outside: str, *, same: bool) -> None:
    assert (checks.differs(inside, outside) == "") is same


def test_the_way_into_an_image_is_quoted_and_clean(tmp_path: pathlib.Path) -> None:
    deployment = real_site(tmp_path / "it's here", pathlib.Path("/raw"))
    container = (
        f"container: {{runtime: apptainer, image: /i.sif, digest: '{DIGEST}', stage: /dev/shm/x, nodes: {{raw: /gpfs/raw}}}}\n"
    )
    deployment.file.write_text(deployment.file.read_text() + container)
    text = enter.script(site.load(deployment.file), ("beamtide", "work", "--name", "a b"), gpus=1)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    last = text.strip().splitlines()[-1]
    assert last.startswith("beamtide_enter apptainer exec --no-home")
    assert " --nv " in last
    assert last.endswith("beamtide work --name 'a b'")
    assert "beamtide_bind /gpfs/raw /raw ro needed" in text
    assert f'beamtide_stage "$beamtide_image" {"0" * 64} /dev/shm/x apptainer' in text
    assert '"$@"' in text.split("beamtide_enter()")[1]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded", "gives users no namespaces"),
        ("squashfuse_ll exited: fuse: failed to open /dev/fuse: Permission denied", "cannot mount image.sif"),
        ("FATAL: kernel reported a bad superblock: ... or the image is corrupted", "not a whole image"),
        ("FATAL: something new", "image.sif does not start here: FATAL: something new"),
    ],
)
def test_what_the_container_program_said_is_told_as_what_to_do(said: str, meant: str) -> None:
    assert meant in checks.reason(said, pathlib.Path("/images/image.sif"))


def test_an_image_for_another_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"org.beamtide.image": "worker-cpu", "org.label-schema.build-arch": "other"}
    monkeypatch.setattr(checks.runtime, "labels", lambda program, path: labels)
    monkeypatch.setattr(checks.runtime, "inside", lambda program, path, command: (0, ""))
    found = checks.image(Runtime("apptainer", pathlib.Path("/bin/true"), "1"), pathlib.Path("image.sif"))
    assert "it was built for other, and this machine is" in found["architecture"]


def test_without_a_container_the_command_is_all(tmp_path: pathlib.Path) -> None:
    deployment = real_site(tmp_path, pathlib.Path("/raw"))
    assert enter.script(deployment, ("beamtide", "work", "it's")) == "exec beamtide work 'it'\"'\"'s'\n"


@pytest.mark.skipif(enter.GPU_DRIVER.exists(), reason="there is a GPU here")
def test_a_job_that_wants_a_gpu_ends_with_a_sentence_where_there_is_none(tmp_path: pathlib.Path) -> None:
    script = enter.script(real_site(tmp_path, pathlib.Path("/raw")), ("echo", "it works"), gpus=1)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (enter.IMAGE_CODES[0], "", 1)
    assert "has no NVIDIA driver" in done.stderr


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{runtime: apptainer}", "needs an image"),
        ("{runtime: docker, image: x}", "apptainer"),
        ("{runtime: apptainer, image: x.sif, stage: /s}", "add container.digest"),
        ("{runtime: apptainer, image: x.sif, unpack: true}", "add container.stage"),
        ("{runtime: apptainer, image: x.sif, digest: md5}", "digest"),
        ("{runtime: apptainer, image: x.sif, nodes: {raw: relative}}", "must begin with /"),
        ("{runtime: apptainer, image: 'a:b.sif'}", "colon"),
    ],
)
def test_a_wrong_container_section_is_one_sentence(tmp_path: pathlib.Path, section: str, said: str) -> None:
    deployment = real_site(tmp_path, pathlib.Path("/raw"))
    deployment.file.write_text(deployment.file.read_text() + f"container: {section}\n")
    with pytest.raises(BadInput, match=said) as refused:
        site.load(deployment.file)
    assert "site.yaml" in str(refused.value)
