"""The source is part of what a result is: other numbers, another product; the same numbers, the same product."""

import pathlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.cores.metadata import MetadataMachine
from beamline_side.spool.sqlite_spool import Spool
from beamtide.config.models import PipelineConfig, SourceConfig
from beamtide.config.settings import UNSTATED, canonical, digest_of_bytes, document_for
from beamtide.messages import metadata as m
from beamtide.messages.base import PipelineName
from beamtide.messages.tasks import Closed, PullRequest, SubmitRequest
from tests.builders.scans import make_state
from tests.unit.test_buffer_and_distributor import Driven, task_of

HERE = pathlib.Path()
NAMES = st.sampled_from(["a", "b"])
READS = st.fixed_dictionaries(
    {
        "match": st.sampled_from(["{scan}/*.h5", "{scan}/*.nxs"]),
        "format": st.sampled_from(["hdf5", "eiger"]),
        "options": st.dictionaries(NAMES, NAMES, max_size=2),
        "first": st.sampled_from([None, 0, 1]),
        "frames_per_file": st.sampled_from(["auto", "any", "line", 7]),
    }
)
CUTS = st.fixed_dictionaries(
    {"frames_per_task": st.sampled_from(["line", "file", "scan", 3]), "settle": st.sampled_from([0.0, 2.0])}
)
SNAKES = st.sampled_from([None, True, False])


def pipeline(reads: dict[str, object], cuts: dict[str, object], snake: bool | None) -> PipelineConfig:
    return PipelineConfig(pipeline="p", modality="counters", source=SourceConfig(**reads, **cuts), snake=snake)  # type: ignore[arg-type]


@given(st.tuples(READS, CUTS, SNAKES), st.tuples(READS, CUTS, SNAKES))
def test_a_product_is_what_was_read_and_not_how_it_was_cut(one: tuple, other: tuple) -> None:
    digests = [document_for(pipeline(*each), HERE).digest for each in (one, other)]
    assert (digests[0] == digests[1]) == ((one[0], one[2]) == (other[0], other[2]))


@given(READS, SNAKES, st.integers(0, 3), st.integers(0, 3))
def test_each_round_is_a_product(reads: dict, snake: bool | None, one: int, other: int) -> None:
    digests = {document_for(pipeline(reads, {}, snake), HERE, rounds={"p": number}).digest for number in (one, other)}
    assert len(digests) == len({one, other})


def test_what_states_no_source_has_the_digest_that_it_had() -> None:
    made = document_for(pipeline({"match": "*"}, {}, None), HERE, rounds={"p": UNSTATED})
    assert made.digest == digest_of_bytes(canonical(["counters", {}, {}]).encode())
    others = PipelineConfig(pipeline="q", modality="counters", source=SourceConfig(kind="scan"))
    assert document_for(others, HERE).document.source == "", "it reads no files"


def test_what_is_taken_from_another_source_is_another_result() -> None:
    after = PipelineConfig(pipeline="q", modality="counters", source=SourceConfig(kind="scan"), inputs=("p/x",))
    digests = set()
    for match in ("a*", "b*"):
        every = {"p": pipeline({"match": match}, {}, None), "q": after}
        digests.add(document_for(after, HERE, every).digest)
    assert len(digests) == 2


def test_rounds_only_grow_and_survive() -> None:
    spool = Spool(None)
    server = Driven(MetadataMachine(spool), spool)
    scan = make_state("running", 4).scan
    assert "was never started" in server.ask(m.ReprocessRequest(scan=scan.id, rounds={"p": 1}))[0].reason  # type: ignore[attr-defined]
    server.ask(m.ScanStarted(scan=scan))
    for wanted, kept in ((UNSTATED, UNSTATED), (1, 1), (1, 1), (UNSTATED, 1), (0, 1), (2, 2)):
        server.ask(m.ReprocessRequest(scan=scan.id, rounds={"p": wanted}))
        (found,) = server.ask(m.ScansRequest(scan=scan.id))
        assert found.scans[0].rounds == {"p": kept}  # type: ignore[attr-defined]
    again = Driven(MetadataMachine(spool), spool)
    assert again.ask(m.ScansRequest(scan=scan.id))[0].scans[0].rounds == {"p": 2}  # type: ignore[attr-defined]


def test_the_next_generation_of_an_abandoned_task_is_handed_out_once_more() -> None:
    spool = Spool(None)
    distributor = Driven(DistributorMachine({"xrf": "xrf"}, spool), spool)

    def queued() -> float:
        return distributor.machine.progress()["queued.xrf"]

    def close(outcome: str, generation: int, seq: int) -> None:
        closed = (Closed(task=task_of(0).id, outcome=outcome, reason="no file", generation=generation),)  # type: ignore[arg-type]
        distributor.ask(PullRequest(pipeline=PipelineName("xrf"), after=seq, credit=9, closed=closed), b"buffer")

    void, filled = task_of(0, void="no file"), msgspec.structs.replace(task_of(0), generation=1)
    distributor.ask(SubmitRequest(tasks=(void,)))
    distributor.ask(SubmitRequest(tasks=(filled,)))
    assert queued() == 1, "it has no verdict yet"
    close("abandoned", 0, 1)
    distributor.ask(SubmitRequest(tasks=(task_of(0),)))
    assert queued() == 0, "the same generation is known"
    distributor.ask(SubmitRequest(tasks=(filled,)))
    assert queued() == 1
    close("result", 1, 2)
    distributor.ask(SubmitRequest(tasks=(msgspec.structs.replace(filled, generation=2),)))
    assert queued() == 0, "it has a result"
    assert distributor.machine.progress()["open"] == 0
