"""Commands on a chart alone: simulate, check, render."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from statewright.statecharts import Chart
from tests.adapters.cli.conftest import Cli

CONTEXT = ("--context", '{"amount": 50}')


def test_simulate_prints_a_line_for_the_start_and_for_each_token(cli: Cli) -> None:
    result = cli("simulate", "chart.yaml", "submit", "+23h", "+1h", 'approve={"by": "ann"}', *CONTEXT, "--json")
    assert result.code == 0
    first = {"token": None, "configuration": ["draft"], "leaves": ["draft"], "effects": [], "status": "active"}
    assert result.lines[0] == first | {"context": {"amount": 50, "reviewer": None}}
    assert [line["token"] for line in result.lines] == [None, "submit", "+23h", "+1h", 'approve={"by": "ann"}']
    assert [line["leaves"] for line in result.lines] == [["draft"], ["first"], ["first"], ["second"], ["approved"]]
    assert result.lines[1]["configuration"] == ["review", "first"]
    (effect,) = result.lines[1]["effects"]
    assert effect == {"id": effect["id"], "name": "notify", "kind": "perform", "data": None}
    assert (result.lines[4]["status"], result.lines[4]["context"]["reviewer"]) == ("completed", "ann")


def test_simulate_run_adds_one_line_after_every_delay(cli: Cli) -> None:
    lines = cli("simulate", "chart.yaml", "submit", "--run", "--json", *CONTEXT).lines
    assert [line["token"] for line in lines] == [None, "submit", None]
    assert lines[-1]["leaves"] == ["second"]


def test_simulate_run_of_a_chart_without_end_exits_1(cli: Cli, tmp_path: Path) -> None:
    chart = "name: clock\ninitial: tick\nstates:\n  tick: {after: {1s: tock}}\n  tock: {after: {1s: tick}}\n"
    (tmp_path / "clock.yaml").write_text(chart)
    result = cli("simulate", "clock.yaml", "--run", "--json")
    assert (result.code, len(result.lines)) == (1, 1)
    assert len(result.err.splitlines()) == 1
    assert "for ever" in result.err


def test_simulate_for_people(cli: Cli) -> None:
    lines = cli("simulate", "chart.yaml", "submit", "submit", 'approve={"by": "ann"}', *CONTEXT).out.splitlines()
    assert [line.split()[:2] for line in lines if not line.startswith(" ")] == [
        ["start", "draft"],
        ["submit", "first"],
        ["submit", "first"],
        ['approve={"by":', '"ann"}'],
    ]
    text = "\n".join(lines)
    for part in ("effect perform notify", "refused: no transition for 'submit'", 'reviewer = "ann"', "(completed)"):
        assert part in text


def test_a_chart_may_be_an_attribute_of_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "charts.py").write_text(
        "from statewright.statecharts import load_chart\nCHART = load_chart('chart.yaml')\n"
    )
    for source in ("charts.py:CHART", "charts:CHART"):
        assert len(cli("simulate", source, "--json", *CONTEXT).lines) == 1


def test_check_of_a_sound_chart(cli: Cli) -> None:
    assert cli("check", "chart.yaml").code == 0
    assert cli("check", "chart.yaml", "--json") == (0, "", "")


def test_check_names_every_error_with_its_place_and_exits_1(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\ninitial: a\nstates:\n  a: {on: {go: nowhere}}\n  b: {on: {go: {target: a, guard: 1 +}}}\n"
    )
    result = cli("check", "bad.yaml", "--json")
    assert (result.code, result.err) == (1, "")
    assert {"nowhere" in line["message"] for line in result.lines} == {True, False}
    assert all({"severity", "state", "line", "path", "message"} == line.keys() for line in result.lines)
    assert {(line["severity"], line["state"], line["line"]) for line in result.lines} >= {("error", "a", 4)}
    text = cli("check", "bad.yaml")
    assert text.code == 1
    assert "2 errors, 0 warnings" in text.out


def test_check_warnings_exit_0(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("name: odd\ninitial: a\nstates:\n  a: {on: {go: a}}\n  island: {}\n")
    result = cli("check", "odd.yaml", "--json")
    assert result.code == 0
    assert [(line["severity"], line["state"], line["line"]) for line in result.lines] == [("warning", "island", 5)]
    assert "0 errors, 1 warning\n" in cli("check", "odd.yaml").out


def test_render_mermaid_and_json(cli: Cli) -> None:
    diagram = cli("render", "chart.yaml").out
    assert diagram.startswith("stateDiagram-v2\n")
    assert "first --> second : after 24h" in diagram
    definition = cli("render", "chart.yaml", "--format", "json").out
    assert Chart.from_json(definition.encode()).to_json() == definition.strip().encode()
    assert msgspec.json.decode(definition)["name"] == "approval"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate"], "CHART requires an argument"),
        (["simulate", "missing.yaml"], "missing.yaml"),
        (["simulate", "chart.txt"], "chart.txt"),
        (["simulate", "chart.yaml"], "amount"),
        (["simulate", "chart.yaml", "--context", "{"], "expected --context to be JSON, got '{'"),
        (["simulate", "chart.yaml", "x={", *CONTEXT], "token 'x={': expected JSON"),
        (["simulate", "chart.yaml", "+soon", *CONTEXT], "token '+soon': expected a duration"),
        (["simulate", "no_such_module:chart"], "no_such_module"),
        (["simulate", "broken.py:chart"], "'broken.py:chart' can't be loaded: SyntaxError"),
        (["check", "leaving.py:chart"], "'leaving.py:chart' can't be loaded: SystemExit: 0"),
        (["check", "missing.yaml"], "missing.yaml"),
        (["render", "empty.yaml"], "empty.yaml"),
        (["render"], "expected CHART, or --instance ID"),
        (["render", "chart.yaml", "--instance", "d-17"], "expected --format svg with --instance, got 'mermaid'"),
        (["render", "chart.yaml", "--output", "missing/chart.svg"], "missing/chart.svg"),
        (["render", "chart.yaml", "--format", "pdf"], "--format"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "broken.py").write_text("chart = (\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)\n")
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
