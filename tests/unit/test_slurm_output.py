"""What Slurm prints: real lines of every kind, and hostile ones, which never become an empty or a partial picture."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_side.scaling.launchers.base import EndCause, Phase
from cluster_side.scaling.launchers.slurm import output
from cluster_side.scaling.launchers.slurm.output import NotUnderstood
from cluster_side.scaling.launchers.slurm.refusals import cause_of, sentence

LINES = (
    "1_0|RUNNING|0|None|0|1795576024|node[1-2]|xrf-77-00001|end\n"
    "1_[1-3,5%2]|PENDING|0|Resources|0|N/A||xrf-77-00001|end\n"
    "7|FAILED|0|JobLaunchFailure|4021|1795576047|node2|(null)|end\n"
    "8|FAILED|2|NonZeroExitCode|768|1795576047|node2|a|b|end\n"
)


def test_lines_of_a_real_squeue() -> None:
    jobs = output.jobs(LINES)
    assert list(jobs) == ["1_0", "1_1", "1_2", "1_3", "1_5", "7", "8"]
    assert jobs["1_0"].phase is Phase.RUNNING
    assert jobs["1_0"].nodes == ("node1", "node2")
    assert jobs["1_0"].started == 1795576024
    assert jobs["1_0"].reason == ""
    assert jobs["1_5"].reason == "Resources"
    assert jobs["1_5"].expected_start is None
    assert jobs["7"].cause is EndCause.START
    assert jobs["7"].token == ""
    assert jobs["8"].cause is EndCause.CODE
    assert jobs["8"].token == "a|b"
    assert jobs["8"].job == "8+2"


def test_jobs_of_several_clusters() -> None:
    jobs = output.jobs("CLUSTER: maxwell\n5|RUNNING|0|None|0|1||t|end\nCLUSTER: solaris\n5|PENDING|0|None|0|N/A||t|end\n")
    assert {name: job.phase for name, job in jobs.items()} == {"5;maxwell": Phase.RUNNING, "5;solaris": Phase.PENDING}
    assert jobs["5;maxwell"].job == "5"


@pytest.mark.parametrize("state", sorted(output.STATES))
def test_every_state_has_a_meaning(state: str) -> None:
    phase, cause = output.outcome(state, 0)
    assert phase is not Phase.UNKNOWN
    assert (cause is None) == (phase in (Phase.PENDING, Phase.RUNNING))


@pytest.mark.parametrize("state", ["FLYING", "", "completed", "R", "COMPLETED?", "COMPLETED;rm"])
def test_a_state_of_tomorrow_is_unknown_and_alive(state: str) -> None:
    assert output.outcome(state, 0) == (Phase.UNKNOWN, None)


def test_codes_of_a_job_that_never_ran_our_program() -> None:
    causes = {status: output.outcome("FAILED", status)[1] for status in (1 << 8, 126 << 8, 127 << 8, 255 << 8, 53, 9)}
    assert [cause for cause in causes.values() if cause is EndCause.START] == [EndCause.START] * 4
    assert causes[1 << 8] is causes[9] is EndCause.CODE


@pytest.mark.parametrize(
    "bad",
    [
        "1_0|RUNNING|0|None|0|1795576024|node1|tok\n",  # no marker: cut short
        "1_0|RUNNING|0|None|0|1795576024|node1|tok|end",  # no line break: cut short
        "1_0|RUNNING|x|None|0|1795576024|node1|tok|end\n",
        "1_0||0|None|0|1795576024|node1|tok|end\n",
        "abc|RUNNING|0|None|0|1795576024|node1|tok|end\n",
        "1_0|RUNNING|0|None|0|2026-11-25T03:07:04|node1|tok|end\n",
        "1_[0-9|PENDING|0|None|0|N/A||tok|end\n",
        "1_[0-99999999]|PENDING|0|None|0|N/A||tok|end\n",
        "1_[0-5:0]|PENDING|0|None|0|N/A||tok|end\n",
        "slurm_load_jobs error: Unable to contact slurm controller\n",
        "\x00\n",
    ],
)
def test_one_bad_line_makes_the_whole_answer_unknown(bad: str) -> None:
    with pytest.raises(NotUnderstood):
        output.jobs(LINES + bad)


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_hostile_text_is_understood_or_refused(text: str) -> None:
    for parse in (output.jobs, output.accounts, output.nodes):
        try:
            answer = parse(text)
        except NotUnderstood:
            continue
        assert not answer or text.endswith("\n")


@settings(max_examples=40)
@given(st.integers(min_value=1, max_value=len(LINES) - 1))
def test_a_picture_cut_anywhere_is_a_whole_one_or_none(length: int) -> None:
    """Only between two lines can a cut not be seen; `squeue` says so by its exit code."""
    cut = LINES[:-length]
    if cut.endswith("|end\n") or not cut:
        return
    with pytest.raises(NotUnderstood):
        output.jobs(cut)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(LINES.splitlines()), max_size=5), st.text(alphabet="|_[]-,%:0123456789ENDend\n ", max_size=60))
def test_mixed_lines_never_lose_a_job(lines: list[str], noise: str) -> None:
    text = "".join(line + "\n" for line in lines)
    try:
        found = output.jobs(text + noise)
    except NotUnderstood:
        return
    assert set(output.jobs(text)) <= set(found)


def test_submissions() -> None:
    assert output.submitted("17\n", 1) == ("17",)
    assert output.submitted("17;maxwell\n", 2) == ("17_0;maxwell", "17_1;maxwell")
    for bad in ("", "Submitted batch job 17", "17;", "17 18", "-1", "17;a b"):
        with pytest.raises(NotUnderstood):
            output.submitted(bad, 1)


def test_accounting_and_nodes() -> None:
    ends = output.accounts("5_1|COMPLETED|0:0\n6|CANCELLED by 1000|0:15\n7|FAILED|127:0\n8|NODE_FAIL|1:0\n")
    assert ends["5_1"] == (Phase.ENDED, EndCause.DONE)
    assert [ends[job][1] for job in ("6", "7", "8")] == [EndCause.CANCELLED, EndCause.START, EndCause.NODE]
    (kind,) = output.nodes("cpu|up|4|4+|4000+|gpu:2|end\n")
    assert (kind.partition, kind.up, kind.nodes, kind.cpus, kind.memory_mb) == ("cpu", True, 4, 4, 4000)
    assert output.array_bound("X = 1\nMaxArraySize            = 1001\n") == 1001
    assert output.array_bound("") is None


def test_names_of_nodes() -> None:
    assert output.hosts("") == ()
    assert output.hosts("max-wn[008-010,12],gpu1") == ("max-wn008", "max-wn009", "max-wn010", "max-wn12", "gpu1")
    assert output.hosts("rack[1-2]n[1-2]") == ("rack[1-2]n[1-2]",)


WORDS = {
    "Batch job submission failed: Invalid partition name specified": EndCause.RULES,
    "Batch job submission failed: Invalid account or account/partition combination specified": EndCause.RULES,
    "Batch job submission failed: Requested reservation is invalid": EndCause.RULES,
    "Batch job submission failed: Invalid qos specification": EndCause.RULES,
    "Batch job submission failed: Requested node configuration is not available": EndCause.RULES,
    "Batch job submission failed: Invalid feature specification": EndCause.RULES,
    "Invalid generic resource (gres) specification": EndCause.RULES,
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)": EndCause.RULES,
    "Batch job submission failed: User's group not permitted to use this partition": EndCause.RULES,
    "Batch job submission failed: A sentence of a Slurm to come": EndCause.RULES,
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size)": EndCause.LIMIT,
    "Batch job submission failed: Invalid job array specification": EndCause.LIMIT,
    "Batch job submission failed: Slurm temporarily unable to accept job, sleeping and retrying": EndCause.LIMIT,
    "Batch job submission failed: Unable to contact slurm controller (connect failure)": EndCause.DOWN,
    "Batch job submission failed: Protocol authentication error": EndCause.DOWN,
    "'other' can't be reached now, or it is an invalid entry for --cluster.": EndCause.DOWN,
    "Batch job submission failed: Socket timed out on send/recv operation": None,
    "Batch job submission failed: Zero Bytes were transmitted or received": None,
}


@pytest.mark.parametrize("words", WORDS)
def test_refusals_are_sorted_into_causes(words: str) -> None:
    assert cause_of(f"sbatch: error: {words}\n") is WORDS[words]
    assert sentence(f"sbatch: error: {words}\n").startswith("Slurm says: ")


def test_silence_is_no_refusal() -> None:
    assert cause_of("") is None
    assert cause_of("Killed\n") is None
