"""What docs/coming-from-transitions.md says is so: its program prints what is shown, its file is a chart."""

from __future__ import annotations

import re
from pathlib import Path

from transitions import Machine
from transitions.extensions.states import Timeout, add_state_features

from statewright.engine import Engine
from statewright.statecharts import Chart, from_transitions
from tests.test_readme import ROOT, blocks, commands, run, run_python

PAGE = ROOT / "docs" / "coming-from-transitions.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAM = blocks(TEXT, "python")[0]


def test_the_program_prints_what_is_shown_every_time(tmp_path: Path) -> None:
    shown = blocks(TEXT, "")[0]
    assert run_python(PROGRAM, tmp_path) == shown
    assert "recorded" not in run_python(PROGRAM, tmp_path)


def test_the_library_takes_the_same_configuration() -> None:
    names: dict[str, object] = {}
    exec(PROGRAM.partition("async def main")[0], names)

    @add_state_features(Timeout)
    class WithTimeout(Machine):
        pass

    machine = WithTimeout(model=None, **names["CONFIG"])  # type: ignore[arg-type]
    assert list(machine.states) == ["draft", "review", "published"]


def test_the_file_is_a_chart_for_every_command(tmp_path: Path) -> None:
    (tmp_path / "turnstile.yaml").write_text(blocks(TEXT, "yaml")[0])
    for command in commands(TEXT):
        assert run(command, tmp_path) != "", command


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_the_ids_are_as_told() -> None:
    names = ["A", "A_1", "2", "B", "B_1"]
    states = [
        {"name": "A", "children": ["1", "2"], "initial": "1"},
        {"name": "B", "children": ["1"], "initial": "1"},
    ]
    chart = from_transitions({"states": states, "initial": "A", "transitions": [["go", "A", "B"]]}, name="ids")
    assert list(chart.machine.by_id) == names
    assert ", ".join(f"`{one}`" for one in names) in TEXT


async def test_an_instance_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A guard of several conditions is found again for the stored definition."""

    def chart() -> Chart:
        config = {
            "states": ["open", "closed"],
            "initial": "open",
            "transitions": [["close", "open", "closed", ["sure", "able"], "stuck"]],
        }
        functions = {
            "sure": lambda context, event: event.data["sure"],
            "able": lambda context, event: True,
            "stuck": lambda context, event: False,
        }
        return from_transitions(config, name="door", functions=functions)

    url = f"sqlite:///{tmp_path / 'door.db'}"
    async with Engine.open(url, charts=[chart()]) as engine:
        await engine.start("door", id="d-1")
        refused = await engine.send("d-1", "close", {"sure": False}, event_id="e-1")
        assert refused.reason == "guard 'sure and able and not stuck' of state 'open' was false"
    async with Engine.open(url, charts=[chart()]) as engine:
        closed = await engine.send("d-1", "close", {"sure": True}, event_id="e-2")
        assert (closed.kind, closed.configuration) == ("recorded", ("closed",))
