"""The exploration holds all that a chart can do, says when it does not, and finds the shortest ways."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from statewright.statecharts import Chart, Event, chart, parallel, state
from statewright.statecharts.exploration import Edge, Exploration, explore
from statewright.statecharts.simulate import Simulation, parse_token
from tests.statecharts.behaviour import read
from tests.statecharts.random_charts import charts, events
from tests.statecharts.test_appendix_d import quickly


def explored(text: str) -> Exploration:
    return explore(read(text).definition)


def leaves(exploration: Exploration) -> list[tuple[str, ...]]:
    return [exploration.machine.leaves(node.configuration) for node in exploration.nodes]


def sources(exploration: Exploration, edge: Edge) -> list[str]:
    return [getattr(exploration.transitions[number][0], "id", "") for number in edge.transitions]


@quickly(80)
@given(charts(), events)
def test_what_happens_is_in_the_exploration(tree: dict[str, Any], names: list[str]) -> None:
    subject = Chart.from_tree(tree)
    exploration = explore(subject.definition, microsteps_max=2_000)
    if not exploration.is_complete:
        return
    known = {(node.configuration, node.history, node.completed) for node in exploration.nodes}
    step = subject.machine.start({})
    if step.reason:
        assert "did not settle" in step.reason
        assert exploration.endless
        return
    for name in [*names, ""]:
        snapshot = step.snapshot
        history = tuple(sorted(snapshot.history.items()))
        assert (snapshot.configuration, history, step.status == "completed") in known
        if step.status == "completed" or not name:
            return
        step = subject.machine.step(snapshot, Event(name))
        if "did not settle" in step.reason:
            assert exploration.endless


@quickly(50)
@given(charts())
def test_every_node_is_reached_by_its_path(tree: dict[str, Any]) -> None:
    """Guards of these charts ask for nothing but the configuration, so each path can be simulated as it is."""
    subject = Chart.from_tree(tree)
    exploration = explore(subject.definition, microsteps_max=2_000)
    for number, node in enumerate(exploration.nodes[:50]):
        simulation = Simulation(subject)
        line = simulation.begin()
        for edge in exploration.path_to(number)[1:]:
            line = simulation.feed(parse_token(edge.stimulus.event))
        assert line.leaves == subject.machine.leaves(node.configuration)
        assert (line.status == "completed") == node.completed


def test_guards_are_taken_both_ways() -> None:
    exploration = explored(
        """
        context: {n: int}
        states:
          a:
            on:
              go: [{target: b, guard: context.n < 5}, {target: c, guard: event.data.ok}]
          b: {}
          c: {type: final}
        """
    )
    assert leaves(exploration) == [("a",), ("b",), ("c",)]
    assert [[outcome.passed for outcome in edge.guards] for edge in exploration.edges[0]] == [
        [True],
        [False, True],
        [False, False],
    ]
    refused = exploration.edges[0][2]
    assert (refused.target, refused.transitions) == (0, ())


def test_a_guard_and_its_negation_are_one_question_until_data_change() -> None:
    text = """
        context: {n: int}
        initial: a
        states:
          a: {on: {go: choice}}
          choice:
            always:
              - {target: low, guard: context.n < 5}
              - {target: high, guard: "!(context.n < 5)", actions: {assign: {n: 1}}}
          low: {}
          high: {always: [{target: never, guard: context.n < 5}, {target: higher, guard: context.n >= 5}]}
          never: {}
          higher: {}
        """
    assert leaves(explored(text)) == [("a",), ("low",), ("never",), ("higher",)]
    assert leaves(explored(text.replace(", actions: {assign: {n: 1}}", ""))) == [("a",), ("low",), ("higher",)]


def test_delays_results_and_raised_events_lead_on() -> None:
    exploration = explored(
        """
        initial: wait
        states:
          wait: {entry: archive, after: {24h: late}, on: {done.effect.archive: done}}
          late: {entry: {raise: called}, on: {called: {target: done}}}
          done: {type: final}
        """
    )
    assert leaves(exploration) == [("wait",), ("done",)]
    late, done = exploration.edges[0]
    assert [(edge.stimulus.kind, sources(exploration, edge)) for edge in (done, late)] == [
        ("delay", ["wait", "late"]),
        ("result", ["wait"]),
    ]


def test_a_chart_rests_where_the_guards_of_its_eventless_transitions_are_false() -> None:
    exploration = explored(
        """
        context: {n: int}
        states:
          a: {on: {go: b}}
          b: {always: {target: c, guard: context.n < 5}, on: {x: a}}
          c: {type: final}
        """
    )
    assert leaves(exploration) == [("a",), ("c",), ("b",)]


def test_history_is_part_of_where_one_is() -> None:
    exploration = explored(
        """
        initial: work
        states:
          work:
            initial: one
            on: {pause: rest}
            states:
              one: {on: {next: two}}
              two: {on: {next: one}}
              h: {history: shallow}
          rest: {on: {resume: h}}
        """
    )
    rests = [node.history for node in exploration.nodes if exploration.machine.leaves(node.configuration) == ("rest",)]
    assert rests == [(("h", ("one",)),), (("h", ("two",)),)]


def test_paths_are_shortest() -> None:
    exploration = explored(
        "states: {a: {on: {slow: b, fast: d}}, b: {on: {on: c}}, c: {on: {on: d}}, d: {on: {on: e}}, e: {}}"
    )
    (last,) = (number for number, names in enumerate(leaves(exploration)) if names == ("e",))
    assert [edge.stimulus.event for edge in exploration.path_to(last)] == ["", "fast", "on"]


def test_a_loop_that_no_guard_ends() -> None:
    text = """
        context: {n: int}
        initial: idle
        states:
          idle: {on: {go: a}}
          a: {always: b}
          b: {entry: {raise: again}, on: {again: {target: a, guard: context.n < 5}}}
        """
    (endless,) = explored(text).endless
    assert endless.stimulus.event == "go"
    assert endless.source == 0
    machine = explored(text).machine
    assert "a" in machine.names(endless.states)
    # An assignment on the way may end it.
    assert (
        explored(text.replace("always: b", "always: {target: b, actions: {assign: {n: context.n + 1}}}")).endless == ()
    )


def test_a_chart_that_raises_ever_more_events_is_bounded() -> None:
    exploration = explored(
        "states: {a: {on: {go: b}}, b: {entry: [{raise: x}], on: {x: {target: b, actions: [{raise: x}]}}}}"
    )
    assert exploration.bounds
    assert [found.stimulus.event for found in exploration.endless] == ["go"]


def test_a_wide_parallel_hits_the_bound_and_says_so() -> None:
    parts = [
        state(f"r{i}", states=[state(f"a{i}", on={f"go{i}": f"b{i}"}), state(f"b{i}", on={f"back{i}": f"a{i}"})])
        for i in range(40)
    ]
    exploration = explore(chart("wide", states=[parallel("p", states=parts)]).definition, microsteps_max=5_000)
    assert exploration.bounds == ("it stopped after 5000 microsteps",)
    assert len(exploration.nodes) == len(set(exploration.nodes)) > 500
    few = explore(chart("wide", states=[parallel("p", states=parts)]).definition, configurations_max=100)
    assert len(few.nodes) == 100
    assert few.bounds == ("there are more than 100 configurations",)


def test_many_guards_at_once_are_bounded() -> None:
    parts = ", ".join(
        f"r{i}: {{states: {{a{i}: {{on: {{go: {{target: b{i}, guard: event.data.n > {i}}}}}}}, b{i}: {{}}}}}}"
        for i in range(20)
    )
    exploration = explored(f"states: {{p: {{type: parallel, states: {{{parts}}}}}}}")
    assert any("guards of one microstep" in bound for bound in exploration.bounds)


def test_regions_whose_order_decides() -> None:
    exploration = explored(
        """
        states:
          p:
            type: parallel
            states:
              one: {states: {a: {on: {stop: x}}}}
              two: {states: {b: {on: {stop: y}}}}
          x: {}
          y: {}
        """
    )
    (conflict,) = exploration.conflicts
    targets = [exploration.transitions[number][1].target for number in conflict]
    assert targets == [("x",), ("y",)]
