"""Why is nothing moving? Each reason, said by the component that knows it."""

import pathlib
from functools import partial

import pytest

from beamline_side.cores.buffer.buffer import DISTRIBUTOR, BufferMachine
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.cores.sorter.sorter import AGAIN_AFTER, SorterMachine
from beamline_side.cores.topology import TopologyMachine
from beamline_side.hosts.one_scan import check_shape
from beamtide.config.models import LeaseConfig
from beamtide.errors import BadInput
from beamtide.machine import Heard, Keep, Send, Tick, link
from beamtide.messages.base import Ok, PipelineName, Refused, Seconds
from beamtide.messages.results import Released, StoreRequest
from beamtide.messages.tasks import Entry, Pulled, PullRequest, SubmitRequest
from beamtide.messages.topology import ComponentCard, Topology, TopologyRequest
from tests.builders.scans import make_scan
from tests.builders.sites import make_pipeline
from tests.builders.tasks import make_task
from tests.stories.shelf import Shelf

SINK = link("sink")


task_of = partial(make_task, pipeline="xrf", modality="xrf")


class Sorter:
    """A sorter and its disk."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.machine = SorterMachine("xrf", self.shelf)

    def tell(self, event: Heard | Tick, now: float = 0.0) -> list[Send]:
        effects = self.machine.handle(event, Seconds(now))
        for effect in effects:
            if isinstance(effect, Keep):
                self.shelf.keep(effect.table, effect.key, effect.body)
        return [effect for effect in effects if isinstance(effect, Send)]

    def store(self, start: int, stop: int) -> None:
        request = StoreRequest(task=task_of(start, stop), attempt=1, outcome="empty")
        assert self.tell(Heard(b"worker", request, 1))[0].message == Ok(note=request.task.id)
        self.tell(Tick())


def test_a_sorter_says_which_index_is_missing() -> None:
    sorter = Sorter()
    sorter.store(4, 8)
    assert sorter.machine.why() == "waits for index 0 of s; 1 results behind it"


def test_a_sorter_says_that_the_sink_refuses_and_no_longer_when_it_takes() -> None:
    sorter = Sorter()
    sorter.store(0, 4)
    sorter.tell(Heard(SINK, Refused(reason="its disk is full", retry_after=1.0)))
    assert sorter.machine.why() == "the sink refuses results: its disk is full"
    sorter.tell(Tick(), AGAIN_AFTER)
    sorter.tell(Heard(SINK, Released(task=task_of(0, 4).id)))
    assert sorter.machine.why() == ""


def test_the_topology_manager_shows_itself() -> None:
    machine = TopologyMachine(ComponentCard(name="topology", kind="topology", address="here"))
    (answer,) = machine.handle(Heard(b"asker", TopologyRequest(), 1), Seconds(0.0))[1:]
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Topology)
    assert [(one.card.name, one.state) for one in answer.message.components] == [("topology", "running")]


def test_a_scan_keeps_the_shape_that_it_had(tmp_path: pathlib.Path) -> None:
    known = make_scan("scan_1", (3, 8))
    check_shape(known, make_scan("scan_1", (3, 8)), tmp_path)
    with pytest.raises(BadInput, match=r"scan_1 was processed with shape 3x8 before, .* and not with 4x8: give --shape 3x8"):
        check_shape(known, make_scan("scan_1", (4, 8)), tmp_path)


def test_a_sorter_says_that_the_sink_gives_no_credit() -> None:
    sorter = Sorter()
    sorter.store(0, 4)
    assert sorter.machine.why() == ""
    sorter.tell(Tick(), AGAIN_AFTER + 1)
    assert sorter.machine.why() == "no credit: the sink does not answer, and 1 results wait for it"


def test_a_distributor_says_that_a_buffer_is_full_or_silent() -> None:
    machine = DistributorMachine({"xrf": "xrf"}, Shelf())
    machine.handle(Heard(b"source", SubmitRequest(tasks=(task_of(0, 4),)), 1), Seconds(0.0))
    assert machine.why() == "the buffer of xrf has not asked yet"
    machine.handle(Heard(b"buffer", PullRequest(pipeline=PipelineName("xrf"), after=0, credit=0), 2), Seconds(0.0))
    assert machine.why() == "the buffer of xrf is full"


def test_a_buffer_says_that_no_worker_is_there() -> None:
    shelf = Shelf()
    machine = BufferMachine(make_pipeline(), LeaseConfig(), shelf)
    entries = tuple(Entry(seq=number + 1, task=task_of(number, number + 1)) for number in range(3))
    shelf.batch(machine, [Heard(DISTRIBUTOR, Pulled(pipeline=PipelineName("xrf"), entries=entries))], 0.0)
    assert machine.why() == "3 tasks wait and no worker is there"
