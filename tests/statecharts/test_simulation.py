"""simulate, mermaid, check and subscriptions: what is done with a chart without an engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from statewright.statecharts import ContextError, MessageError
from statewright.statecharts.check import check
from statewright.statecharts.mermaid import mermaid
from statewright.statecharts.simulate import Simulation, SimulationError, parse_token
from tests.statecharts.behaviour import read


def lines_of(text: str, *tokens: str, run: bool = False, context: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    simulation = Simulation(read(text), context)
    lines = [simulation.begin(), *(simulation.feed(parse_token(token)) for token in tokens)]
    if run:
        lines.append(simulation.run())
    return [json.loads(msgspec.json.encode(line)) for line in lines]


REMINDING = """
context: {limit: {type: int, default: 2}, sent: {type: int, default: 0}}
states:
  waiting:
    initial: quiet
    states:
      quiet:
        after:
          1h:
            target: quiet
            guard: context.sent < context.limit
            actions: [remind, {assign: {sent: context.sent + 1}}]
    after: {90m: late}
    on: {done: over}
  late: {after: {50ms: over}}
  over: {type: final}
"""


def test_a_line_has_the_shape_of_the_contract() -> None:
    first, second = lines_of(REMINDING, "+60m")
    assert first == {
        "token": None,
        "configuration": ["waiting", "quiet"],
        "leaves": ["quiet"],
        "context": {"limit": 2, "sent": 0},
        "effects": [],
        "status": "active",
    }
    assert second["token"] == "+60m"
    assert second["effects"] == [{"id": "test-2-0", "name": "remind", "kind": "perform", "data": None}]
    assert second["context"]["sent"] == 1


def test_timers_fire_when_they_are_due_and_not_before() -> None:
    leaves = [line["leaves"] for line in lines_of(REMINDING, "+89m", "+59s", "+1s", "+49ms", "+1ms")]
    assert leaves == [["quiet"], ["quiet"], ["quiet"], ["late"], ["late"], ["over"]]


def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_set() -> None:
    sends = "[{send: {event: two, delay: 2s}}, {send: {event: one, delay: 1s}}, {send: {event: uno, delay: 1s}}]"
    handlers = "{one: {actions: [a]}, uno: {actions: [b]}, two: {actions: [c]}}"
    lines = lines_of(f"states: {{s: {{entry: {sends}, on: {handlers}}}}}", "+2s")
    assert [effect["name"] for effect in lines[1]["effects"]] == ["a", "b", "c"]


def test_a_cancelled_timer_stays_cancelled() -> None:
    lines = lines_of(REMINDING, "done", "+100h", run=True)
    assert [line["status"] for line in lines] == ["active", "completed", "completed", "completed"]
    assert lines[-1]["configuration"] == ["over"]


def test_an_undelayed_send_is_delivered_before_the_next_token() -> None:
    lines = lines_of("states: {a: {entry: [{send: now}], on: {now: b}}, b: {on: {go: c}}, c: {}}", "go")
    assert [line["leaves"] for line in lines] == [["b"], ["c"]]


def test_run_goes_through_every_pending_delay() -> None:
    line = lines_of(REMINDING, run=True)[-1]
    assert (line["token"], line["leaves"], line["status"]) == (None, ["over"], "completed")
    assert [effect["name"] for effect in line["effects"]] == ["remind"]


def test_run_without_an_end_is_an_error() -> None:
    with pytest.raises(SimulationError, match="sets them for ever"):
        lines_of("states: {a: {after: {1h: a}}}", run=True)
    with pytest.raises(SimulationError, match="sets them for ever"):
        lines_of("states: {a: {entry: [{send: x}], on: {x: a}}}")


def test_an_unhandled_event_leaves_things_as_they_are() -> None:
    first, second = lines_of(REMINDING, "nonsense")
    assert second == {**first, "token": "nonsense"}


def test_an_event_may_carry_json() -> None:
    chart = "context: {x: {type: dyn, default: null}}\nstates: {a: {on: {go: {actions: [{assign: {x: event.data}}]}}}}"
    assert lines_of(chart, 'go={"a": [1, "="]}')[1]["context"] == {"x": {"a": [1, "="]}}
    assert lines_of(chart, "go")[1]["context"] == {"x": None}


def test_a_start_that_is_refused_has_failed() -> None:
    assert lines_of("states: {a: {entry: [{log: 1 / 0}]}}", "go")[0]["status"] == "failed"
    with pytest.raises(ContextError):
        lines_of(REMINDING, context={"limit": "two"})


@pytest.mark.parametrize(
    "token", ["", "+", "+soon", "+-5s", "=5", "two words", "go={", "go=", "go=NaN", "go=" + "[" * 100_000]
)
def test_a_token_that_means_nothing_is_refused(token: str) -> None:
    with pytest.raises(SimulationError, match="expected"):
        parse_token(token)


DRAWN = """
initial: a.b
on: {abort: gone, tell: {actions: [note]}}
states:
  a.b: {on: {go: {target: par, guard: "event.data.n < 3 && event.name != ';'"}, ping: {actions: [pong, {raise: x}]}}}
  par:
    type: parallel
    states:
      one: {states: {x: {after: {24h: y}}, y: {type: final}}}
      two: {states: {h: {history: deep, target: z}, z: {on: {out: [{target: gone}]}}}}
  gone: {type: final}
"""


def test_mermaid_draws_nesting_regions_history_guards_and_delays() -> None:
    assert mermaid(read(DRAWN)) == (
        "stateDiagram-v2\n"
        "    [*] --> s1_\n"
        '    state "a.b" as s1_\n'
        "    state par {\n"
        "        state one {\n"
        "            [*] --> x\n"
        "            x\n"
        "            y\n"
        "            y --> [*]\n"
        "            x --> y : after 24h\n"
        "        }\n"
        "        --\n"
        "        state two {\n"
        "            [*] --> z\n"
        "            z\n"
        '            state "H* h" as h\n'
        "            h --> z\n"
        "        }\n"
        "    }\n"
        "    gone\n"
        "    gone --> [*]\n"
        "    s1_ --> gone : abort\n"
        "    par --> gone : abort\n"
        "    s1_ --> par : go [event.data.n #lt; 3 && event.name != '#59;']\n"
        "    s1_ --> s1_ : ping / pong, raise x\n"
        "    z --> gone : out\n"
        "    note right of s1_\n"
        "        in every state\n"
        "        tell / note\n"
        "    end note\n"
    )


def test_mermaid_draws_no_arrow_from_a_state_into_itself() -> None:
    """Its layout fails on those; the arrow begins at each child instead."""
    drawn = mermaid(read("states: {a: {on: {again: c}, states: {b: {}, c: {}, f: {type: final}}}}"))
    assert [line.strip() for line in drawn.splitlines() if "again" in line] == ["b --> c : again", "c --> c : again"]


def test_check_finds_what_cannot_happen() -> None:
    chart = read(
        """
        initial: a
        states:
          a:
            entry: [{raise: lost}, {send: {event: heard, delay: 1h}}]
            on:
              go.*: b
              go.now: {target: b, guard: "true"}
              heard: b
            after: {1h: [b, {target: b, guard: "true"}]}
            always: [{target: b, guard: "false"}, b, {target: a}]
          b: {states: {b1: {on: {back: h}}, b2: {states: {b3: {}}}, h: {history: shallow}}}
          c: {states: {c1: {}}}
        """
    )
    found = [(fault.line, fault.state, fault.severity, fault.message) for fault in check(chart)]
    assert [(line, state) for line, state, _, _ in found] == [
        (5, "a"),
        (7, "a"),
        (8, "a"),
        (9, "a"),
        (10, "a"),
        (10, "a"),
        (11, "a"),
        (11, "a"),
        (12, "b2"),
        (13, "c"),
    ]
    assert {severity for _, _, severity, _ in found} == {"warning"}
    assert "'lost' is raised" in found[0][3]
    assert "for 'go.*' can never be taken: the chart never rests in its state" in found[1][3]
    assert "for 'go.now' can never be taken: an earlier one without a guard on line 7" in found[2][3]
    assert "'c' can never be entered" in found[9][3]


def test_check_is_content_with_a_sound_chart() -> None:
    assert check(read(REMINDING)) == []
    assert check(read(DRAWN.replace(", {raise: x}", ""))) == []


def test_a_subscription_maps_a_strangers_message_to_an_event() -> None:
    chart = read(
        """
        subscribe:
          - {subject: data.processed, event: processed, instance: data.workflowInstanceId}
          - {subject: user.*, eventexpr: data.kind, instance: "headers['flow']", data: data.body, id: string(data.n)}
        states: {a: {}}
        """
    )
    first, second = chart.subscriptions
    assert first.subject == "data.processed"
    assert first.map("data.processed", {}, {"workflowInstanceId": "d-1", "x": 2}) == (
        "d-1",
        "processed",
        {"workflowInstanceId": "d-1", "x": 2},
        "",
    )
    assert second.map("user.action", {"flow": "d-2"}, {"kind": "clicked", "body": [1], "n": 7}) == (
        "d-2",
        "clicked",
        [1],
        "7",
    )
    for data, message in (
        ({}, "instance of a message on 'data.processed': Key not found"),
        (None, "instance"),
        ({"workflowInstanceId": ""}, "expected a text"),
    ):
        with pytest.raises(MessageError, match=message):
            first.map("data.processed", {}, data)
