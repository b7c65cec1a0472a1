"""The `transitions` door: what each part of a configuration becomes, and that what can't be carried over is refused by
name. That the whole behaves as in the library is tested beside it, in `test_transitions_library.py`."""

from __future__ import annotations

import enum
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from transitions.extensions.markup import HierarchicalMarkupMachine, MarkupMachine

from statewright.statecharts import Chart, ChartError, Event, from_transitions, load_chart
from statewright.statecharts.simulate import Simulation, parse_token
from statewright.statecharts.transitions_reader import is_transitions

FUNCTIONS = {name: (lambda context, event, name=name: event.data[name]) for name in ("c0", "c1")}


def leaves(chart: Chart, *tokens: str) -> tuple[str, ...]:
    simulation = Simulation(chart)
    line = simulation.begin()
    for token in tokens:
        line = simulation.feed(parse_token(token))
    return line.leaves


def effects(chart: Chart, *tokens: str) -> list[str]:
    """What the last of them asks for."""
    simulation = Simulation(chart)
    line = simulation.begin()
    for token in tokens:
        line = simulation.feed(parse_token(token))
    return [effect.name for effect in line.effects]


DOOR: dict[str, Any] = {
    "states": ["open", "closed"],
    "initial": "open",
    "transitions": [["close", "open", "closed"], ["open", "closed", "open"]],
}


def door(**changes: Any) -> dict[str, Any]:
    return {**DOOR, **changes}


@pytest.mark.parametrize("kind", [MarkupMachine, HierarchicalMarkupMachine])
def test_what_markup_writes_is_read(kind: Any) -> None:
    config = door(
        transitions=[*DOOR["transitions"], {"trigger": "knock", "source": "*", "dest": None, "before": "ring"}]
    )
    machine = kind(model=None, name="door", auto_transitions=False, **config)
    chart = from_transitions(machine.markup)
    assert chart.name == "door"
    assert leaves(chart, "close", "knock") == ("closed",)
    assert effects(chart, "close", "knock") == ["ring"]


def test_ids_are_local_names_where_unique_and_paths_elsewhere() -> None:
    states = [
        {"name": "a", "children": ["run", "x"], "initial": "x"},
        {"name": "b", "children": ["run"], "initial": "run"},
    ]
    chart = from_transitions({"states": states, "initial": "a_run", "transitions": [["go", "a_run", "b"]]}, name="ids")
    assert list(chart.machine.by_id) == ["a", "a_run", "x", "b", "b_run"]
    assert leaves(chart) == ("a_run",)
    assert leaves(chart, "go") == ("b_run",)


def test_a_separator_of_ones_own() -> None:
    states = [{"name": "a_b", "children": ["x", "y"], "initial": "x"}]
    config = {"states": states, "initial": "a_b.y", "transitions": []}
    assert leaves(from_transitions(config, name="dots", separator=".")) == ("y",)


def test_enumerations_of_states() -> None:
    class Inner(enum.Enum):
        ONE = 1
        TWO = 2

    class Outer(enum.Enum):
        A = 0
        B = Inner

    config = {
        "states": Outer,
        "initial": Outer.A,
        "transitions": [["go", Outer.A, Inner.TWO], ["out", Outer.B, Outer.A]],
    }
    chart = from_transitions(config, name="enums")
    assert leaves(chart, "go") == ("TWO",)
    assert leaves(chart, "go", "out") == ("A",)


def test_without_an_initial_the_library_s_own_is_added() -> None:
    chart = from_transitions({"states": ["a"], "transitions": [["go", "initial", "a"]]}, name="initial")
    assert leaves(chart) == ("initial",)
    assert leaves(chart, "go") == ("a",)


def test_callbacks_become_effects_assignments_and_raised_events() -> None:
    def count(context: Any, event: Any) -> dict[str, int]:
        return {"closed": context.closed + 1}

    config = door(
        states=["open", {"name": "closed", "on_enter": ["count", "tell", "lock"]}, "locked"],
        transitions=[*DOOR["transitions"], ["lock", "closed", "locked", "sure", None, "click"]],
    )
    functions = {"count": count, "sure": lambda context, event: context.closed > 1}
    chart = from_transitions(
        config, name="door", functions=functions, context={"closed": {"type": "int", "default": 0}}
    )
    simulation = Simulation(chart)
    simulation.begin()
    first = simulation.feed(parse_token('close={"by": "ann"}'))
    assert (first.leaves, first.context) == (("closed",), {"closed": 1})
    assert [(effect.name, effect.data) for effect in first.effects] == [("tell", {"by": "ann"})]
    simulation.feed(parse_token("open"))
    second = simulation.feed(parse_token("close"))
    assert (second.leaves, second.context) == (("locked",), {"closed": 2})
    assert [effect.name for effect in second.effects] == ["tell", "click"]


def test_conditions_may_be_fields_of_the_context() -> None:
    config = door(transitions=[["close", "open", "closed", ["free"], "broken"]])
    context = {"free": "bool", "broken": {"type": "bool", "default": False}}
    chart = from_transitions(config, name="door", context=context)
    assert "context.free && !context.broken" in chart.to_json().decode()
    start = chart.machine.start({"free": True}).snapshot
    assert chart.machine.leaves(chart.machine.step(start, Event("close")).snapshot.configuration) == ("closed",)


def test_a_guard_of_several_conditions_is_read_again_from_the_stored_definition() -> None:
    config = door(transitions=[["close", "open", "closed", ["c0"], ["c1", "broken"]]])
    context = {"broken": {"type": "bool", "default": False}}
    chart = from_transitions(config, name="door", functions=FUNCTIONS, context=context)
    again = Chart.from_json(chart.to_json(), chart.functions)
    assert again.digest == chart.digest
    start = again.machine.start({}).snapshot
    refused = again.machine.step(start, Event("close", {"c0": True, "c1": True}))
    assert "c0 and not c1 and not broken" in refused.reason
    assert again.machine.step(start, Event("close", {"c0": True, "c1": False})).taken


def test_a_condition_that_answers_with_no_bool_refuses_the_event() -> None:
    config = door(transitions=[["close", "open", "closed", ["c0", "c1"]]])
    chart = from_transitions(config, name="door", functions=FUNCTIONS)
    step = chart.machine.step(chart.machine.start({}).snapshot, Event("close", {"c0": 1, "c1": True}))
    assert not step.taken
    assert "expected a bool from 'c0', got 1" in step.reason


def test_timeouts_are_durable_timers() -> None:
    states = [{"name": "open", "timeout": 1.5, "on_timeout": ["warn", "close"]}, "closed"]
    chart = from_transitions(door(states=states), name="door")
    assert leaves(chart, "+1s") == ("open",)
    assert leaves(chart, "+1500ms") == ("closed",)
    assert effects(chart, "+1500ms") == ["warn"]


def test_on_final_of_a_state_and_of_the_machine() -> None:
    inner = [{"name": "y"}, {"name": "z", "final": True, "on_final": "z_done"}]
    states = [
        {"name": "a", "children": inner, "initial": "y", "on_final": "a_done"},
        {"name": "end", "final": True, "on_enter": "entered"},
    ]
    transitions = [["go", "a_y", "a_z"], ["finish", "a", "end"]]
    config = {"states": states, "initial": "a", "transitions": transitions, "on_final": "all_done"}
    chart = from_transitions(config, name="final")
    assert effects(chart, "go") == ["z_done", "a_done", "all_done"]
    assert effects(chart, "go", "finish") == ["entered", "all_done"]


def test_all_sources_do_not_mean_final_states() -> None:
    states = ["open", "closed", {"name": "gone", "final": True}]
    chart = from_transitions(door(states=states, transitions=[["leave", "*", "gone"]]), name="door")
    assert leaves(chart, "leave") == ("gone",)
    assert leaves(chart, "leave", "leave") == ("gone",)


def test_automatic_transitions_only_if_they_are_asked_for() -> None:
    assert leaves(from_transitions(DOOR, name="door"), "to_closed") == ("open",)
    assert leaves(from_transitions(door(auto_transitions=True), name="door"), "to_closed") == ("closed",)
    other = from_transitions(door(auto_transitions=True, model_attribute="mode"), name="door")
    assert leaves(other, "to_mode_closed") == ("closed",)


def test_a_flat_name_with_the_separator_is_one_name() -> None:
    config = {"states": ["under", "under_review"], "initial": "under_review", "transitions": []}
    assert leaves(from_transitions(config, name="flat")) == ("under_review",)
    assert leaves(from_transitions(config, name="nested", nested=True)) == ("review",)


SURE: dict[str, Any] = {"transitions": [["close", "open", "closed", "sure"]]}
PARALLEL: dict[str, Any] = {
    "states": [
        "off",
        {"name": "p", "parallel": [{"name": n, "children": [f"{n}1", f"{n}2"], "initial": f"{n}1"} for n in "ab"]},
    ],
    "initial": "off",
}


@pytest.mark.parametrize(
    ("config", "path", "said"),
    [
        (door(prepare_event="log"), "prepare_event", "runs before the guards"),
        (door(on_exception="log"), "on_exception", "can't be carried over"),
        (door(finalize_event=["log"]), "finalize_event", "can't be carried over"),
        (door(show_conditions=True), "show_conditions", "has no 'show_conditions'"),
        (door(initial=None), "initial", "expected one state"),
        (door(initial=["open", "closed"]), "initial", "expected one state"),
        (door(initial="opn"), "initial", "unknown initial 'opn'"),
        (door(states=["open", "closed", "open"]), "states[2]", "given twice"),
        (door(states=["open", "closed", 3]), "states[2]", "expected a state"),
        (door(states=["open", "closed", {"name": "x", "retries": 2}]), "states[2].retries", "has no 'retries'"),
        (door(states=["open", "closed", {"name": "x", "timeout": 2}]), "states[2].timeout", "on_timeout"),
        (door(states=["open", "closed", {"name": "x", "timeout": "2"}]), "states[2].timeout", "in seconds"),
        (door(states=[{"name": "open", "final": True}, "closed"]), "transitions[0][1]", "final state 'open'"),
        (door(states=[{"name": "open", "final": 1}, "closed"]), "states[0].final", "true or false"),
        (door(states=["open", {"name": "closed", "on_enter": "os.remove"}]), "states[1].on_enter", "never imported"),
        (door(states=["open", {"name": "closed", "on_enter": "to_open"}]), "states[1].on_enter", "auto_transitions"),
        (door(states=["open", {"name": "closed", "on_exit": lambda c, e: {}}]), "states[1].on_exit", "of its own"),
        (
            door(states=["open", {"name": "closed", "children": ["x"], "final": True}]),
            "states[1].final",
            "inside a final",
        ),
        (
            door(states=["open", {"name": "closed", "parallel": True}]),
            "states[1].parallel",
            "expected a list of states",
        ),
        (
            door(states=["open", {"name": "closed", "children": list("xyz"), "initial": ["x", "y"]}]),
            "states[1].initial",
            "without z",
        ),
        (door(**SURE), "transitions[0][3]", "'sure'"),
        (door(transitions=[{"trigger": "x", "source": "open"}]), "transitions[0]", "null for an internal"),
        (door(transitions=[["x", "open"]]), "transitions[0]", "got 2 items"),
        (door(transitions=[["x", "opn", "closed"]]), "transitions[0][1]", "unknown source 'opn'"),
        (door(transitions=[["x", "open", "clsed"]]), "transitions[0][2]", "unknown dest 'clsed'"),
        (door(transitions=[["*", "open", "closed"]]), "transitions[0][0]", "expected a trigger"),
        (door(transitions=[["x", "open", "closed"], ["x.y", "open", "="]]), "transitions[0][0]", "'x.y'"),
        (
            door(transitions=[{"trigger": "x", "source": "open", "dest": "=", "prepare": "p"}]),
            "transitions[0].prepare",
            "prepare",
        ),
        (
            door(transitions=[{"trigger": "x", "source": "open", "dest": "=", "guard": "p"}]),
            "transitions[0].guard",
            "has no 'guard'",
        ),
        (door(transitions={"x": "open"}), "transitions", "expected a list"),
        (PARALLEL | {"transitions": [["x", "p_a_a1", "p_b_b2"]]}, "transitions[0][2]", "one region of 'p'"),
        (PARALLEL | {"transitions": [["x", "p", "p_b_b2"]]}, "transitions[0][2]", "one region of 'p'"),
        (PARALLEL | {"transitions": [["x", "p_a", "="]]}, "transitions[0][2]", "one region of 'p'"),
    ],
)
def test_what_cannot_be_carried_over_is_named(config: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ChartError) as caught:
        from_transitions(config, name="wrong")
    found = {fault.path: fault.message for fault in caught.value.faults}
    assert said in found.get(path, ""), found


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ChartError) as caught:
        from_transitions({"states": ["a", {"name": "b", "hook": 1}], "initial": "c", "transitions": [["x", "a", "d"]]})
    assert [fault.path for fault in caught.value.faults] == ["name", "states[1].hook", "initial", "transitions[0][2]"]


@pytest.mark.parametrize("config", [None, [], "states", {"states": 3}, {"states": {"a": {}}}, {"states": [[[]]]}])
def test_other_shapes_are_refused(config: Any) -> None:
    with pytest.raises(ChartError):
        from_transitions(config, name="wrong")


def test_states_that_hold_themselves_are_refused() -> None:
    state: dict[str, Any] = {"name": "a"}
    state["children"] = [state]
    with pytest.raises(ChartError):
        from_transitions({"states": [state], "initial": "a"}, name="endless")


class Amounts(msgspec.Struct):
    big: bool = False


def test_the_context_may_be_a_struct_class() -> None:
    chart = from_transitions(door(transitions=[["close", "open", "closed", "big"]]), name="door", context=Amounts)
    assert chart.definition.context[0].name == "big"


def test_files_are_told_from_our_own_form(tmp_path: Path) -> None:
    (tmp_path / "my door.json").write_text(json.dumps(door(version="2", context={"free": "bool"})))
    theirs = load_chart(tmp_path / "my door.json")
    assert (theirs.name, theirs.version, leaves_of(theirs)) == ("my-door", "2", ["open", "closed"])
    (tmp_path / "ours.json").write_bytes(theirs.to_json())
    assert load_chart(tmp_path / "ours.json").digest == theirs.digest


@pytest.mark.parametrize(
    ("tree", "theirs"),
    [
        ({"states": ["a"]}, True),
        ({"states": [{"name": "a"}], "transitions": []}, True),
        ({"states": [], "transitions": [["go", "a", "b"]]}, True),
        ({"states": [], "transitions": [{"trigger": "go"}]}, True),
        ({"states": [{"id": "a"}, "b"]}, False),
        ({"states": [{"id": "a"}], "transitions": [{"trigger": "go"}]}, False),
        ({"states": []}, False),
        ({"states": {"a": {}}, "transitions": [{"event": "go"}]}, False),
        ("states", False),
    ],
)
def test_a_state_with_an_id_is_ours(tree: Any, theirs: bool) -> None:
    assert is_transitions(tree) is theirs


def leaves_of(chart: Chart) -> list[str]:
    return [state.id for state in chart.definition.states]


def test_faults_in_files_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "door.yaml"
    path.write_text(
        "states:\n  - open\n  - closed\ninitial: open\ntransitions:\n  - [close, open, closed]\n  - [x, opn, open]\n"
    )
    with pytest.raises(ChartError) as caught:
        load_chart(path)
    assert re.search(r"line 7, transitions\[1\]\[1\]: unknown source 'opn'", str(caught.value))
