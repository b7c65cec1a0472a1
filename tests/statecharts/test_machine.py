"""The compiled machine: on transitions' classes, immutable, safe to share, and recorded by names."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from transitions.extensions.nesting import HierarchicalMachine, NestedState, NestedTransition

from statewright.statecharts import Chart, ChartError, Event, StatewrightError, UnknownState, chart, final, state, to
from statewright.statecharts.caches import CACHED_MAX
from tests.statecharts.behaviour import read

NESTED = """
initial: b.x
states:
  a_1: {on: {go: b.x}}
  b.x: {type: parallel, states: {c: {states: {c1: {}, c2: {}}}, d: {}}}
"""


def test_a_compiled_chart_is_made_of_transitions_classes() -> None:
    machine = read(NESTED).machine
    assert isinstance(machine, HierarchicalMachine)
    assert list(machine.states) == ["a_1", "b.x"]
    assert all(isinstance(inner, NestedState) for inner in machine.states.values())
    found = machine.events["go"].transitions["a_1"][0]
    assert isinstance(found, NestedTransition)
    assert (found.source, found.dest) == ("a_1", "b.x")
    assert machine.get_state("b.x/c/c1").id == machine.get_state("c1").id == "c1"
    assert machine.models == []


def test_a_compiled_chart_cannot_be_changed() -> None:
    machine = read(NESTED).machine
    for change in (
        lambda: machine.add_states("new"),
        lambda: machine.add_transition("go", "a_1", "c"),
        lambda: machine.add_model(object()),
    ):
        with pytest.raises(StatewrightError, match="is compiled"):
            change()


def test_no_name_reaches_python_code() -> None:
    tree: dict[str, Any] = {
        "name": "x",
        "states": {"a": {"on": {"go": {"target": "a", "guard": {"function": "os.getcwd"}}}}},
    }
    with pytest.raises(ChartError, match=r"no function 'os\.getcwd' is registered"):
        Chart.from_tree(tree)
    with pytest.raises(StatewrightError, match=r"got the name 'os\.getcwd'"):
        read(NESTED).machine.resolve_callable("os.getcwd", None)
    assert read(NESTED).machine.resolve_callable(os.getcwd, None) is os.getcwd


def test_names_leaves_and_accepts() -> None:
    machine = read(NESTED).machine
    configuration = machine.start({}).snapshot.configuration
    assert machine.names(configuration) == ("b.x", "c", "c1", "d")
    assert machine.names(configuration) is machine.names(configuration)
    assert machine.leaves(configuration) == ("c1", "d")
    assert machine.accepts(configuration) == ()
    assert machine.names(0) == machine.leaves(0) == ()


def test_a_recorded_instance_is_restored_by_names() -> None:
    machine = read(NESTED).machine
    snapshot = machine.start({}).snapshot
    assert machine.restore(("b.x", "c", "c1", "d"), {}, {}, 0) == snapshot
    assert machine.restore(["d", "c1", "c", "b.x"], {}, {}, 0) == snapshot
    assert machine.restore((), {}, {}, 3).configuration == 0


@pytest.mark.parametrize(("configuration", "history"), [(("zz",), {}), (("d",), {"zz": ()}), (("d",), {"c": ("zz",)})])
def test_a_recorded_state_that_the_chart_lacks_is_an_error(configuration: Any, history: Any) -> None:
    with pytest.raises(UnknownState, match="chart 'test' has no state 'zz'"):
        read(NESTED).machine.restore(configuration, {}, history, 0)


def test_ids_may_be_unicode_and_differ_only_in_case() -> None:
    machine = read("states: {Größe: {on: {los: größe}}, größe: {on: {los: 状态}}, 状态: {}}").machine
    step = machine.step(machine.start({}).snapshot, Event("los"))
    assert machine.names(machine.step(step.snapshot, Event("los")).snapshot.configuration) == ("状态",)


def test_caches_do_not_grow_with_what_strangers_send() -> None:
    machine = read("states: {a: {on: {go.on: a}}}").machine
    snapshot = machine.start({}).snapshot
    for number in range(CACHED_MAX * 2):
        assert machine.step(snapshot, Event(f"stranger.{number}")).reason
    assert len(machine._handlers) <= CACHED_MAX


def test_a_thousand_states_with_guards_and_timers() -> None:
    states = [
        state(
            f"s{i}",
            entry=["note"],
            on={"go": to(f"s{(i + 1) % 1000}", guard=f"context.n > {i}"), "back": f"s{i - 1 if i else 0}"},
            after={"1h": "s0"},
        )
        for i in range(1000)
    ]
    machine = chart("big", context={"n": "int"}, states=[*states, final("end")]).machine
    assert machine.step(machine.start({"n": 5}).snapshot, Event("go")).entered == ("s1",)


def test_many_threads_share_one_machine() -> None:
    """Guards that ask the configuration pass it beside CEL's arguments: each thread must see its own."""
    machine = read(
        """
        context: {n: int}
        states:
          even: {on: {go: {target: odd, guard: "In('even') && context.n % 2 == 0"}}}
          odd: {on: {go: {target: even, guard: "In('odd') && !In('even') && context.n % 2 == 0"}}}
        """
    ).machine
    wrong: list[str] = []

    def drive(n: int) -> None:
        step = machine.start({"n": n})
        for _ in range(500):
            step = machine.step(step.snapshot, Event("go"))
            if bool(step.reason) != (n % 2 == 1):
                wrong.append(step.reason)

    threads = [threading.Thread(target=drive, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_step_changes_nothing_that_came_in() -> None:
    machine = read(
        """
        context: {tags: {type: list(string), default: []}}
        states: {a: {on: {go: {target: b, actions: [{assign: {tags: "context.tags + ['x']"}}]}}}, b: {}}
        """
    ).machine
    before = machine.start({}).snapshot
    first, second = machine.step(before, Event("go")), machine.step(before, Event("go"))
    assert first == second
    assert before.context == {"tags": []}
    assert first.snapshot.context == {"tags": ["x"]}
