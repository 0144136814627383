"""The house has no circles of imports, and no arrow from a lower layer to a higher one, at any depth."""

from tests.house import import_graph

GRAPH = import_graph.graph()


def test_there_is_no_circle() -> None:
    assert len(GRAPH) > 300
    assert not import_graph.circles(GRAPH)
    found = {one: import_graph.circles(import_graph.rooms(GRAPH, one)) for one in import_graph.containers(GRAPH)}
    assert not {container: circle for container, circle in found.items() if circle}


def test_no_arrow_runs_upwards() -> None:
    stated = import_graph.layers()
    assert {"beamtide", "beamline_side", "cluster_side"} <= stated.keys()
    found = {one: import_graph.upward(import_graph.rooms(GRAPH, one), floors) for one, floors in stated.items()}
    assert not {container: arrows for container, arrows in found.items() if arrows}


def test_a_circle_and_an_upward_arrow_are_seen() -> None:
    assert import_graph.circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]
    assert import_graph.circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    floors = [{"top"}, {"left", "right"}]
    assert import_graph.upward({"top": {"left"}, "left": {"top"}, "right": {"left"}}, floors) == ["left -> top", "right -> left"]
