"""What goes over Lavue's stream and when, read as Lavue reads it."""

import itertools
import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beamtide.client.lavue_stream import LIST, NEW, OLD, Picture, Programme, frame, topic_of


def shown(message: list[bytes]) -> tuple[str, np.ndarray, dict[str, object]]:
    """Read a frame as Lavue does: topic, array with the horizontal axis first, and facts."""
    topic, buffer, facts, end = message
    assert end == b"JSON"
    told = json.loads(facts)
    return topic.decode(), np.frombuffer(buffer, told["dtype"]).reshape(told["shape"]), told


def test_the_horizontal_axis_comes_first() -> None:
    values = np.arange(6.0).reshape(2, 3)
    topic, seen, facts = shown(frame("t", Picture(values, 1, "scan_1 Fe", ("x", "y", "um", "um"), (1, 2, 0.5, 0.5)), 7))
    assert (topic, facts["name"], facts["axislabels"], facts["axisscales"]) == (
        "t",
        "scan_1 Fe #7",
        ["x", "y", "um", "um"],
        [1, 2, 0.5, 0.5],
    )
    np.testing.assert_array_equal(seen, values.T)
    np.testing.assert_array_equal(shown(frame("c", Picture(np.arange(4.0), 1, "curve"), 8))[1], np.arange(4))


def test_names_that_lavue_cannot_take_are_changed() -> None:
    assert topic_of("xrf_area/Fe_K:1,2;3 é") == "xrf_area_Fe_K_1_2_3__"


@given(st.lists(st.tuples(st.floats(0.05, 1.5), st.booleans(), st.integers(1, 3)), min_size=1, max_size=40))
def test_nothing_comes_faster_than_it_can_be_shown_and_nothing_is_forgotten(story: list[tuple[float, bool, int]]) -> None:
    """Time passes, pictures change, their number changes: rates, lists and names."""
    programme, now, picture = Programme(), 100.0, Picture(np.zeros((2, 2)), 0, "p")
    frames: list[tuple[float, int]] = []
    lists: list[tuple[float, list[str]]] = []
    names: set[str] = set()
    for pause, changes, count in story:
        now += pause
        picture = replace(picture, version=picture.version + changes)
        topics = [f"t{number}" for number in range(count)]
        for message in programme.due(dict.fromkeys(topics, picture), now):
            if message[0] == b"datasources":
                lists.append((now, json.loads(message[1])["datasources"]))
                continue
            topic, _, facts = shown(message)
            assert str(facts["name"]) not in names, "Lavue drops a picture whose name it has shown"
            names.add(str(facts["name"]))
            if topic == "t0":
                frames.append((now, picture.version))
        assert lists[-1][1] == topics, "a viewer would not know of a picture"
        assert now - lists[-1][0] <= LIST
        assert frames[-1][1] == picture.version or now - frames[-1][0] < NEW, "a change was not shown"
        assert now - frames[-1][0] <= OLD + 1e-9
    for (before, version), (after, later) in itertools.pairwise(frames):
        assert after - before >= (NEW if later != version else OLD) - 1e-9, "faster than Lavue can show it"
