"""What `check` finds by exploring, and what it has nothing against."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from statewright.statecharts import Chart, chart, load_chart, parallel, state
from statewright.statecharts.check import check
from statewright.statecharts.checks.order import exclusive
from statewright.statecharts.errors import Fault
from statewright.statecharts.simulate import Simulation, parse_token
from statewright.statecharts.workflows import Workflow
from tests.statecharts.behaviour import read
from tests.statecharts.random_charts import charts
from tests.statecharts.test_appendix_d import quickly

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "document_approval" / "chart.yaml"


def findings(text: str, **options: Any) -> list[Fault]:
    return check(read(text), **options)


def only(text: str, **options: Any) -> Fault:
    (fault,) = findings(text, **options)
    return fault


def way(fault: Fault) -> list[str]:
    """The tokens that a finding says lead there."""
    said = fault.message.partition("; the way there: ")[2]
    return [] if said == "the start" else shlex.split(said)


def test_the_example_is_free_of_noise() -> None:
    assert check(load_chart(EXAMPLE)) == []


DEADLOCK = """
context: {amount: int, checked: {type: bool, default: false}}
initial: draft
states:
  draft: {on: {submit: review, tick: draft}}
  review:
    after: {24h: escalated}
    on: {approve: {target: done, guard: context.amount < 100}}
  escalated: {on: {call: {target: stuck, guard: event.data.line == "red"}, approve: done}}
  stuck: {on: {tick: {actions: {assign: {checked: "true"}}}}}
  done: {type: final}
"""


def test_a_deadlock_comes_with_a_way_that_simulate_takes() -> None:
    fault = only(DEADLOCK)
    assert (fault.severity, fault.state, fault.line) == ("warning", "stuck", 10)
    assert "state 'stuck' is not final, but nothing leads on from there" in fault.message
    tokens = way(fault)
    assert tokens[:3] == ["submit", "+1d", 'call={"line": "red"}']
    simulation = Simulation(read(DEADLOCK), {"amount": 1})
    simulation.begin()
    assert [simulation.feed(parse_token(token)).leaves for token in tokens[:3]][-1] == ("stuck",)


def test_without_data_for_its_guards_the_way_names_them() -> None:
    text = DEADLOCK.replace('event.data.line == "red"', "'event.data.line.matches(\"^r[0-9]{3}z$\")'")
    assert only(text).message.endswith(
        """submit +24h call (where guard 'event.data.line.matches("^r[0-9]{3}z$")' of state 'escalated' is true)"""
    )


@quickly(60)
@given(charts())
def test_every_deadlock_is_stuck(tree: dict[str, Any]) -> None:
    subject = Chart.from_tree(tree)
    for fault in check(subject):
        if "nothing leads on" not in fault.message or "(where " in fault.message:
            continue
        simulation = Simulation(subject)
        line = simulation.begin()
        for token in way(fault):
            line = simulation.feed(parse_token(token))
        assert line.status == "active"
        assert all(repr(leaf) in fault.message or "more" in fault.message for leaf in line.leaves)
        for event in ("a", "b", "c.x", "c.y", "d.x", "e", "z"):
            steps = len(simulation.steps)
            assert simulation.feed(parse_token(event)).leaves == line.leaves
            assert not any(item.targets for step in simulation.steps[steps:] for item in step.taken)


@pytest.mark.parametrize(
    "text",
    [
        "states: {a: {on: {go: b}}, b: {type: final}}",
        "states: {a: {on: {go: b}}, b: {after: {1h: a}}}",
        "states: {a: {on: {go: b}}, b: {entry: archive, on: {done.effect.archive: a}}}",
        "states: {a: {on: {go: b}}, b: {entry: {send: {event: later, delay: 1h}}, on: {later: a}}}",
        "on: {stop: b}\nstates: {a: {on: {go: a2}}, a2: {}, b: {type: final}}",
        "states: {a: {on: {x: c}}, c: {always: [{target: d, guard: event.data > 1}, b]}, b: {on: {x: a}}, d: F}",
    ],
)
def test_no_deadlock_where_something_leads_on(text: str) -> None:
    assert findings(text.replace("F}", "{type: final}}")) == []


def test_a_loop_without_an_end_is_an_error() -> None:
    fault = only("initial: a\nstates:\n  a: {on: {go: b}}\n  b: {always: c}\n  c: {always: b}")
    assert (fault.severity, fault.line) == ("error", 5)
    assert "'b', 'c' follow each other for ever" in fault.message or "'c', 'b' follow" in fault.message
    assert way(fault) == ["go"]
    text = "context: {n: int}\nstates: {a: {on: {go: b}}, b: {always: {target: b, guard: context.n < 5}, on: {x: a}}}"
    assert only(text).severity == "warning"
    assert way(only(text))[:2] == ["go", "(where"]


def test_two_guards_that_can_both_be_true() -> None:
    text = """
        context: {n: int}
        states:
          a:
            on:
              go:
                - {target: b, guard: context.n < 10}
                - {target: c, guard: context.n > 5}
                - b
          b: {type: final}
          c: {type: final}
        """
    fault = only(text)
    assert (fault.severity, fault.state, fault.line) == ("warning", "a", 8)
    assert "with {'n': 6}" in fault.message or "with {'n': 9}" in fault.message
    assert findings(text.replace("context.n > 5", "context.n > 10")) == []
    assert findings(text.replace("context.n > 5", "'!(context.n < 10)'")) != []  # then the third is never taken
    assert "both be enabled" not in str(findings(text.replace("context.n > 5", "'!(context.n < 10)'")))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("context.x", "!context.x", True),
        ("!(context.x && a)", "context.x && a", True),
        ("a < b", "a >= b", True),
        ("b > a", "a >= b", True),
        ("a == 'x'", "'x' != a", True),
        ("a < b", "a <= b", False),
        ("(a) && (b)", "!(a) && (b)", False),
        ("a == '<'", "a != '<'", True),
        ("a < b || c", "a >= b || c", False),
    ],
)
def test_evident_negation(one: str, other: str, expected: bool) -> None:
    assert exclusive(one, other) is expected
    assert exclusive(other, one) is expected


def test_regions_that_exclude_each_other() -> None:
    text = """
        states:
          p:
            type: parallel
            states:
              one: {states: {a: {on: {stop: x}}}}
              two: {states: {b: {on: {stop: y}}}}
          x: {type: final}
          y: {type: final}
        """
    found = findings(text)
    assert [(fault.state, fault.line) for fault in found] == [("b", 7), ("y", 9)]
    assert "'a' on line 6 and 'b' for 'stop' exclude each other" in found[0].message


def test_an_inner_transition_before_an_outer_one_is_no_matter_of_order() -> None:
    text = "states: {p: {initial: b, states: {a: {on: {stop: y}}, b: {on: {go: a}}}, on: {stop: x}}, x: F, y: F}"
    assert findings(text.replace("F", "{type: final}")) == []


def test_what_a_guard_on_the_configuration_never_allows() -> None:
    fault = only("initial: a\nstates:\n  a: {on: {go: {target: a, guard: \"In('b')\"}, on: b}}\n  b: {type: final}")
    assert fault.message == "the transition for 'go' can never be taken: its guard \"In('b')\" is never true there"


def test_a_state_that_only_an_idle_transition_leads_to() -> None:
    found = findings(
        "initial: a\nstates:\n  a: {on: {on: b}, always: {target: c, guard: 'false'}}\n  b: {type: final}\n  c: {}"
    )
    assert [(fault.line, fault.state) for fault in found] == [(4, "a"), (6, "c")]
    assert found[1].message == "state 'c' can never be entered: no sequence of events does so"


def test_effects_without_a_handler_are_errors_when_handlers_are_given() -> None:
    text = "states:\n  a:\n    entry: [notify, archive]\n    on: {go: b}\n  b: {type: final}"
    assert findings(text) == []
    fault = only(text, handlers={"notify"})
    assert (fault.severity, fault.state, fault.line) == ("error", "a", 4)
    assert fault.message == "effect 'archive' has no handler; those given are notify"


def test_the_charts_of_children_are_checked_too() -> None:
    text = """
        states:
          a:
            invoke:
              - id: sub
                chart: {name: child, initial: x, states: {x: {on: {go: y}}, y: {type: final}, z: {}}}
            on: {done.invoke.sub: b}
          b: {type: final}
        """
    fault = only(text)
    assert fault.message == "in child chart 'child': state 'z' can never be entered: nothing leads to it"
    assert (fault.state, fault.line) == ("z", 6)


def test_waits_and_failures_are_told_on_request() -> None:
    text = """
        states:
          a: {on: {go: b}}
          b: {after: {1h: c}, on: {go: c}}
          c: {entry: archive, on: {done.effect.archive: d}}
          d: {type: final}
        """
    assert findings(text) == []
    found = findings(text, info=True)
    assert [(fault.severity, fault.line) for fault in found] == [("info", 3), ("info", 5)]
    assert found[0].message == "state 'a' waits for 'go' without a timeout"
    assert "if effect 'archive' fails the instance fails" in found[1].message


def test_a_bound_is_said_and_nothing_is_claimed_beyond_it() -> None:
    parts = [
        state(f"r{i}", states=[state(f"a{i}", on={f"go{i}": f"b{i}"}), state(f"b{i}", on={f"back{i}": f"a{i}"})])
        for i in range(30)
    ]
    (fault,) = check(chart("wide", states=[parallel("p", states=parts)]))
    assert fault.severity == "info"
    assert "not all that the chart can do was looked at: " in fault.message
    assert re.search(r"; seen were [\d,]+ configurations with all states$", fault.message)


def test_what_a_bounded_exploration_has_not_seen_is_named() -> None:
    workflow = Workflow("wide", mode="parallel")
    for number in range(1_000):
        workflow.add_step(id=f"s{number}", function="nothing")
    (fault,) = check(workflow.chart())
    assert re.search(r"; seen were \d+ configurations without the states 's\d+.end', .* and \d+ more$", fault.message)
