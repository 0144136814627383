"""Bad input in the `slurm:` section of a site file: one sentence with file, line and key, before anything is submitted."""

import pathlib

import pytest

from beamtide.config import site
from beamtide.errors import BadInput

SITE = """
site: p06
roots: {raw: raw, processed: processed}
state: state
pipelines: []
launcher: slurm
scaling: {caps: {jobs: 4, node_hours_per_day: 10}}
slurm:
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("partition: allcpu", "slurm.partition"),
        ("partitions: allcpu", "slurm.partitions"),
        ("partitions: ['--wrap=id']", "slurm.partitions"),
        ("partitions: ['a b']", "slurm.partitions"),
        ("reservation: '$(id)'", "slurm.reservation"),
        ("account: 'x;y'", "slurm.account"),
        ("constraint: 'A100; rm'", "slurm.constraint"),
        ("gpus: 'gpu -N9'", "slurm.gpus"),
        ("mpi: ''", "slurm.mpi"),
        ("cpus_per_node: -1", "slurm.cpus_per_node"),
        ("look_every: 1", "slurm.look_every"),
        ("patience: 0", "slurm.patience"),
        ("backend: rest", "slurm.backend"),
        ("elsewhere: [{cluster: solaris}]", "`cluster` must be the name of this cluster"),
        ("elsewhere: [{partitions: [solcpu]}]", "slurm.elsewhere.0.cluster"),
    ],
)
def test_one_sentence_with_its_place(tmp_path: pathlib.Path, line: str, said: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"{SITE}  {line}\n")
    with pytest.raises(BadInput) as error:
        site.load(file)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{file.name}:")
    assert "\n" not in str(error.value)


def test_a_bad_beamtime(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(SITE.replace("slurm:\n", 'beamtime: "../x"\n'))
    with pytest.raises(BadInput, match="beamtime"):
        site.load(file)
