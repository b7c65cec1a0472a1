"""`render --format svg`: of a chart, and of an instance in the store."""

from __future__ import annotations

from pathlib import Path

from tests.adapters.cli.conftest import Cli
from tests.adapters.svg.pictures import read


def test_a_chart_to_standard_output_and_to_a_file(cli: Cli, tmp_path: Path) -> None:
    result = cli("render", "chart.yaml", "--format", "svg")
    assert (result.code, result.err) == (0, "")
    assert set(read(result.out).states) == {"", "draft", "review", "first", "second", "approved"}
    assert not any(edge.taken for edge in read(result.out).transitions)
    assert cli("render", "chart.yaml", "--format", "svg", "--output", "chart.svg") == (0, "", "")
    assert (tmp_path / "chart.svg").read_text(encoding="utf-8") == result.out


def test_an_instance_lights_where_it_is(started: Cli) -> None:
    for event in ("submit", "back", "submit", "next"):
        assert started("send", "d-17", event).code == 0
    result = started("render", "--instance", "d-17", "--format", "svg")
    assert (result.code, result.err) == (0, "")
    shown = read(result.out)
    assert {name for name, state in shown.states.items() if "active" in state.classes} == {"review", "second"}
    assert {name for name, state in shown.states.items() if "unvisited" in state.classes} == {"approved"}
    lines = {name: [text for text, _ in state.texts] for name, state in shown.states.items()}
    assert lines[""][:2] == ["approval · version 1", "instance d-17: active"]
    assert lines["review"] == ["review", "entered 2×"]
    assert lines["second"] == ["second", "entered 1×"]
    taken = {edge.texts[0][0]: (edge.source, *edge.targets) for edge in shown.transitions if edge.taken}
    assert taken == {
        "submit · 2×": ("draft", "review"),
        "back · 1×": ("review", "draft"),
        "next · 1×": ("first", "second"),
    }


def test_an_instance_that_has_ended_shows_where(started: Cli) -> None:
    started("send", "d-17", "submit")
    started("send", "d-17", "approve", "--data", '{"by": "ann"}')
    shown = read(started("render", "--instance", "d-17", "--format", "svg").out)
    assert {name for name, state in shown.states.items() if "active" in state.classes} == {"approved"}
    assert "completed" in shown.states["approved"].classes


def test_a_cancelled_instance_shows_where_it_was(started: Cli) -> None:
    started("cancel", "d-17")
    shown = read(started("render", "--instance", "d-17", "--format", "svg").out)
    assert {"active", "cancelled"} <= shown.states["draft"].classes


def test_chart_and_instance_name_one_definition(started: Cli, tmp_path: Path) -> None:
    both = started("render", "chart.yaml", "--instance", "d-17", "--format", "svg")
    assert both == started("render", "--instance", "d-17", "--format", "svg")
    changed = (tmp_path / "chart.yaml").read_text().replace("back: draft", "back: approved")
    (tmp_path / "chart.yaml").write_text(changed)
    result = started("render", "chart.yaml", "--instance", "d-17", "--format", "svg")
    assert (result.code, result.out) == (2, "")
    assert "expected the definition that 'd-17' is pinned to, 'approval' version '1' with digest" in result.err
    assert len(result.err.splitlines()) == 1


def test_a_chart_with_functions_is_drawn_when_it_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from statewright.statecharts.builder import chart, final, state, to\n"
        "def allowed(context, event):\n    return True\n"
        "CHART = chart('mine', initial='a', states=[state('a', on={'go': to('b', guard=allowed)}), final('b')])\n"
    )
    assert cli("start", "mine", "--id", "m-1", "--chart", "mine.py:CHART").code == 0
    alone = cli("render", "--instance", "m-1", "--format", "svg")
    assert (alone.code, len(alone.err.splitlines())) == (2, 1)
    assert "name CHART too" in alone.err
    shown = read(cli("render", "mine.py:CHART", "--instance", "m-1", "--format", "svg").out)
    (transition,) = (edge for edge in shown.transitions if not edge.initial)
    assert [text for text, _ in transition.texts] == ["go", "[allowed]"]


def test_an_unknown_instance_is_not_found(started: Cli) -> None:
    assert started("render", "--instance", "d-18", "--format", "svg") == (2, "", "statewright: no instance 'd-18'\n")
