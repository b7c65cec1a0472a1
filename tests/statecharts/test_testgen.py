"""Generated tests: they run green as they are, cover what they say, and fail when the chart is changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from statewright.statecharts import Chart, Event, chart, final, load_chart, state, to
from statewright.statecharts.testgen import Generated, generate
from tests.statecharts.behaviour import read

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "document_approval" / "chart.yaml"
LOADING = 'load_chart(HERE / "chart.yaml")'

PLAYER = """\
name: player
context: {volume: {type: int, default: 5}, tracks: int}
initial: off
states:
  off: {on: {power: on}}
  on:
    type: parallel
    on: {power: off}
    states:
      sound:
        initial: loud
        states:
          loud: {on: {mute: quiet, turn: {guard: event.data.by + context.volume <= 10, actions: {assign: {volume: context.volume + event.data.by}}}}}
          quiet: {on: {mute: loud}}
      tape:
        initial: stopped
        states:
          stopped: {on: {play: {target: playing, guard: context.tracks > 0}}}
          playing: {after: {3m: stopped}, on: {eject: stopped, pause: paused}}
          paused: {on: {play: remembered}}
          remembered: {always: playing}
"""  # noqa: E501
ORDER = """\
name: order
context: {total: {type: double, default: 0.0}, vip: {type: bool, default: false}}
initial: cart
states:
  cart:
    on:
      add: {actions: {assign: {total: context.total + event.data.price}}}
      checkout:
        - {target: free, guard: context.vip && context.total >= 50.0}
        - {target: payment, guard: context.total > 0.0}
  free: {always: packed}
  payment:
    entry: charge
    on:
      done.effect.charge: packed
      error.effect.charge: {target: cart, actions: {raise: apology}}
  packed: {entry: {send: {event: parcel, delay: 2h}}, on: {parcel: sent, lost: packed}}
  sent: {type: final}
"""
EDITOR = """\
name: editor
initial: editing
states:
  editing:
    initial: text
    on: {help: helping, close: closed}
    states:
      text: {on: {picture: picture}}
      picture: {on: {write: text}}
      where: {history: shallow}
  helping: {on: {back: where}}
  closed: {type: final}
"""
CHARTS = {"player": PLAYER, "order": ORDER, "editor": EDITOR}


def run(folder: Path) -> tuple[int, str]:
    """pytest on the folder, in a process of its own: its exit code and what it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:asyncio", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def write(folder: Path, text: str) -> Generated:
    (folder / "chart.yaml").write_text(text)
    generated = generate(load_chart(folder / "chart.yaml"), LOADING)
    (folder / "test_chart.py").write_text(generated.text)
    return generated


@pytest.mark.parametrize("text", [EXAMPLE.read_text(), *CHARTS.values()], ids=["document_approval", *CHARTS])
def test_everything_is_covered_and_green(tmp_path: Path, text: str) -> None:
    generated = write(tmp_path, text)
    assert generated.missing == ()
    assert generated.covered == generated.goals
    code, said = run(tmp_path)
    assert (code, f"{generated.paths} passed" in said) == (0, True), said


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("player", "on: {mute: loud}", "on: {unmute: loud}"),
        (
            "player",
            "playing: {after: {3m: stopped}, on: {eject: stopped",
            "playing: {after: {4m: stopped}, on: {eject: stopped",
        ),
        ("player", "eject: stopped, pause: paused", "eject: paused, pause: stopped"),
        ("player", "context.tracks > 0", "context.tracks >= 0"),
        ("order", "{target: free, guard:", "{target: payment, guard:"),
        ("order", "entry: charge", "entry: invoice"),
        ("order", ", lost: packed", ""),
        ("order", "context.total >= 50.0", "context.total >= 70.0"),
        ("editor", "{history: shallow}", "{history: shallow, target: text}"),
        ("editor", "on: {back: where}", "on: {back: editing}"),
        ("editor", "closed: {type: final}", "closed: {}"),
    ],
)
def test_a_changed_chart_fails(tmp_path: Path, name: str, old: str, new: str) -> None:
    text = CHARTS[name]
    write(tmp_path, text)
    assert old in text
    (tmp_path / "chart.yaml").write_text(text.replace(old, new))
    code, said = run(tmp_path)
    same = "target: text" in new  # the default of a history that has always recorded something means nothing
    assert (code == 0) == same, said


def test_the_same_chart_gives_the_same_file() -> None:
    assert generate(read(PLAYER), LOADING) == generate(read(PLAYER), LOADING)


def test_guards_get_data_on_both_sides_of_their_constants() -> None:
    text = generate(read(ORDER), LOADING).text
    assert '"vip": True' in text
    assert 'Seen(\'add={"price": ' in text
    assert '"checkout", "cart"' in text


def large(context: Mapping[str, Any], event: Event) -> bool:
    return bool(context["amount"] > 500)


def by_boss(context: Mapping[str, Any], event: Event) -> bool:
    return bool((event.data or {}).get("by") == "boss")


def test_python_guards_are_answered_by_their_constants() -> None:
    ways = [to("b", guard=by_boss), to("c", guard=large)]
    subject = chart("f", context={"amount": "int"}, states=[state("a", on={"go": ways}), final("b"), final("c")])
    generated = generate(subject, LOADING)
    assert generated.missing == ()
    assert '"amount": 501' in generated.text
    assert 'go={"by": "boss"}' in generated.text


def hidden(context: object, event: object) -> bool:
    return str(getattr(event, "data", "")).startswith("\u2603")


def test_what_no_data_were_found_for_is_skipped_until_somebody_gives_them(tmp_path: Path) -> None:
    subject: Chart = chart(
        "hiding",
        initial="a",
        states=[state("a", on={"go": [to("b", guard=hidden), to("c")]}), state("b", on={"x": "c"}), final("c")],
    )
    (tmp_path / "charts.py").write_text(
        "from statewright.statecharts.builder import chart, final, state, to\n\n\n"
        "def hidden(context, event):\n    return str(event.data).startswith('\\u2603')\n\n\n"
        "CHART = chart('hiding', initial='a', states=[state('a', on={'go': [to('b', guard=hidden), to('c')]}),"
        " state('b', on={'x': 'c'}), final('c')])\n"
    )
    loading = "load_chart(f\"{HERE / 'charts.py'}:CHART\")"
    generated = generate(subject, loading)
    assert generated.missing[0] == "guard 'hidden' of state 'a' true (for 'go')"
    assert "Not covered:\n- guard 'hidden' of state 'a' true (for 'go')\n" in generated.text
    (tmp_path / "test_chart.py").write_text(generated.text)
    code, said = run(tmp_path)
    assert (code, "2 skipped" in said) == (0, True), said
    assert "needs data for guard 'hidden' of state 'a' true" in said
    for snow, expected in (("\u2603", 0), ("rain", 1)):
        tokens = [f'go="{snow}"']
        given = {name: {"context": {}, "tokens": tokens} for name in generated.missing[:1]}
        (tmp_path / "test_chart.py").write_text(generate(subject, loading, data=given).text)
        code, said = run(tmp_path)
        assert code == expected, said
