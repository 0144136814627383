"""Batch scripts: golden files for every modality, quoting, mistakes in templates, and what shellcheck says.

`BEAMTIDE_GOLDEN=write pytest tests/unit/test_sbatch_templates.py` writes the golden files anew; read the difference.
"""

import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide import registry
from beamtide.config.container import Container
from beamtide.config.models import Deployment
from beamtide.config.slurm import Elsewhere, Slurm
from beamtide.errors import BadInput
from cluster_side.scaling.launchers.base import JobOrder, JobShape
from cluster_side.scaling.launchers.slurm import options
from cluster_side.scaling.launchers.slurm.script import BASE, TEMPLATES, render
from tests.builders.sites import make_site

GOLDEN = pathlib.Path(__file__).parents[1] / "slurm" / "golden"
MODALITIES = [*sorted(path.name.removesuffix(".sh.j2") for path in TEMPLATES.glob("*.sh.j2") if path.name != BASE), "roi"]
"""Those with a template of their own, and a stranger's."""
ORDER = JobOrder(
    pipeline="xrf",
    modality="xrf",
    token="p06-1a2b-00017",
    count=20,
    slots=4,
    tasks=120,
    shape=JobShape(cpus=4, memory_mb=8192, walltime_s=3600),
    name="beamtide-p06-11010000-xrf",
    argv=("/opt/beamtide/bin/beamtide", "work", "-c", "/gpfs/p06/site file.yaml", "--pipeline", "xrf", "--slots", "4"),
    logs=pathlib.Path("/gpfs/p06/logs"),
    env={"OMP_NUM_THREADS": "1"},
)
WIDE = replace(ORDER, modality="ptychography", count=1, shape=JobShape(cpus=8, memory_mb=65536, gpus=2, nodes=2, ranks=4))


def site(slurm: Slurm | None = None, container: Container | None = None) -> Deployment:
    """Return a site of P06; only its sections `slurm` and `container` matter here."""
    folder = pathlib.Path("/gpfs/p06")
    places = {"roots": {"raw": folder / "raw", "processed": folder / "processed"}, "state": folder / "state"}
    return make_site(folder, site="p06", **places, slurm=slurm or Slurm(), container=container or Container())


def order_of(modality: str) -> JobOrder:
    return replace(WIDE if modality == "ptychography" else ORDER, modality=modality, pipeline=modality)


def test_every_template_is_that_of_a_modality_and_says_more_than_the_base() -> None:
    own = MODALITIES[:-1]
    assert set(own) <= set(registry.names("modalities"))
    assert not [name for name in own if "{% block" not in (TEMPLATES / f"{name}.sh.j2").read_text()]


def test_a_modality_without_a_template_has_ranks_too() -> None:
    script = render(replace(WIDE, modality="roi", pipeline="roi"), site())
    assert "\nexec srun --ntasks=4 --mpi=pmix --kill-on-bad-exit=1 bash -c " in script


@pytest.mark.parametrize("modality", MODALITIES)
def test_scripts_are_the_golden_ones(modality: str) -> None:
    script, golden = render(order_of(modality), site()), GOLDEN / f"{modality}.sh"
    if os.environ.get("BEAMTIDE_GOLDEN") == "write":
        golden.write_text(script)
    assert script == golden.read_text()


def test_shellcheck_is_content() -> None:
    program = pathlib.Path(sys.executable).with_name("shellcheck")
    command = str(program) if program.exists() else shutil.which("shellcheck")
    if command is None:
        pytest.skip("shellcheck is not installed; pip install 'beamtide[dev]'")
    done = subprocess.run(
        [command, "--severity=warning", *sorted(GOLDEN.glob("*.sh"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_worker_takes_the_place_of_the_script(modality: str) -> None:
    """So that signals for the script arrive in the worker."""
    last = render(order_of(modality), site()).strip().splitlines()[-1]
    assert last.startswith("exec ")


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=4))
def test_any_word_arrives_as_it_is_or_is_refused(words: list[str]) -> None:
    order = replace(ORDER, argv=("printf", "%s\\0", *words))
    if any(ord(letter) < 32 or ord(letter) == 127 for word in words for letter in word):
        with pytest.raises(BadInput, match="control character"):
            render(order, site())
        return
    script = render(order, site())
    done = subprocess.run(["bash"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_an_own_template_comes_first_and_its_mistakes_have_a_place(tmp_path: pathlib.Path) -> None:
    own_site = site(Slurm(templates=tmp_path))
    own = tmp_path / "xrf.sh.j2"
    own.write_text('{% extends "base.sh.j2" %}\n{% block prepare %}\nmodule load maxwell\n{% endblock %}\n')
    assert "module load maxwell\n" in render(ORDER, own_site)
    own.write_text("#!/bin/bash\nexec {{ argvs }}\n")
    with pytest.raises(BadInput, match=r"template of xrf: 'argvs' is undefined; sbatch_templates/README.md lists"):
        render(ORDER, own_site)
    own.write_text("#!/bin/bash\n{% if %}\n")
    with pytest.raises(BadInput, match=rf"{own}:2: "):
        render(ORDER, own_site)


@pytest.mark.parametrize("modality", ["xrf", "ptychography"])
def test_with_an_image_the_script_enters_it(modality: str) -> None:
    container = Container(runtime="apptainer", image=pathlib.Path("/gpfs/p06/worker-cpu.sif"))
    script, golden = render(order_of(modality), site(container=container)), GOLDEN / f"{modality}-image.sh"
    if os.environ.get("BEAMTIDE_GOLDEN") == "write":
        golden.write_text(script)
    assert script == golden.read_text()


def test_options_of_a_job() -> None:
    slurm = Slurm(partitions=("allcpu", "psx"), account="p06", qos="normal", constraint="V100|A100")
    (place,) = options.places(slurm, 0)
    words = options.words(options.options(replace(ORDER, exclude=("n1", "n2")), slurm, place))
    assert set(words) == {
        "--job-name=beamtide-p06-11010000-xrf",
        "--comment=p06-1a2b-00017",
        "--output=/gpfs/p06/logs/beamtide-p06-11010000-xrf-%A_%a.log",
        "--open-mode=append",
        "--export=NONE",
        "--signal=B:TERM@90",
        "--no-requeue",
        "--time=60",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=4",
        "--mem=8192M",
        "--array=0-19",
        "--partition=allcpu,psx",
        "--account=p06",
        "--qos=normal",
        "--constraint=V100|A100",
        "--exclude=n1,n2",
    }


def test_a_wide_job_with_gpus() -> None:
    slurm = Slurm(
        partitions=("allcpu",), gpu_partitions=("allgpu",), gpus="gpu:a100", gpu_constraint="A100&GPUx2", whole_nodes=True
    )
    (place,) = options.places(slurm, 2)
    chosen = options.options(WIDE, slurm, place)
    assert (chosen["partition"], chosen["gres"], chosen["constraint"]) == ("allgpu", "gpu:a100:2", "A100&GPUx2")
    assert (chosen["nodes"], chosen["ntasks"], chosen["exclusive"], chosen["mem"]) == ("2", "4", None, "65536M")
    assert "array" not in chosen
    assert "cpus-per-task" not in chosen
    assert str(chosen["output"]).endswith("xrf-%j.log")


def test_the_reservation_first_then_partitions_then_another_cluster() -> None:
    other = Elsewhere(cluster="solaris", partitions=("solcpu",), account="p06s")
    slurm = Slurm(partitions=("allcpu",), reservation="bt11010000", elsewhere=(other,), cluster="maxwell", account="p06")
    first, second, third = options.places(slurm, 0)
    assert str(first) == "reservation bt11010000, partition allcpu, cluster maxwell"
    assert str(second) == "partition allcpu, cluster maxwell"
    assert (third.cluster, third.partitions, third.account) == ("solaris", ("solcpu",), "p06s")
    avoided = replace(ORDER, exclude=("n1",))
    assert options.options(avoided, slurm, second)["exclude"] == "n1"
    assert "exclude" not in options.options(avoided, slurm, third)


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"token": "a b"}, "--comment"),
        ({"token": "--wrap=id"}, "--comment"),
        ({"name": "x;y"}, "--job-name"),
        ({"name": "x\ny"}, "--job-name"),
        ({"exclude": ("n1", "$(id)")}, "--exclude"),
        ({"logs": pathlib.Path("/tmp/%u")}, "--output"),
        ({"logs": pathlib.Path("relative")}, "--output"),
        ({"shape": JobShape(nodes=0)}, "--nodes"),
        ({"shape": JobShape(walltime_s=0)}, "--time"),
    ],
)
def test_what_cannot_be_an_option_is_refused(change: dict[str, object], option: str) -> None:
    with pytest.raises(BadInput, match=f"cannot be Slurm's {option}"):
        options.options(replace(ORDER, **change), Slurm(), options.Placement())
