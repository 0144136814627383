"""A site on a real Slurm: jobs follow the queue, whatever happens to them; afterwards nothing of ours is left."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.field import Field, field_on

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(200)]
CAP = 12


@pytest.fixture(scope="module")
def field(real_slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field_on(real_slurm, tmp_path_factory.mktemp("field"), jobs=CAP) as one:
        yield one


def test_a_burst_of_500_tasks(field: Field) -> None:
    scan = field.start_scan([0.05] * 500)
    field.finish(scan, 120)
    assert 1 < field.most <= CAP
    field.all_gone()


def test_jobs_that_are_cancelled(field: Field) -> None:
    scan = field.start_scan([0.3] * 60)
    field.until(lambda: len(field.jobs("RUNNING")) >= 2 and field.done(scan) >= 2, "two jobs at work")
    field.cluster.run("scancel", *field.jobs("RUNNING")[:2])
    field.finish(scan)
