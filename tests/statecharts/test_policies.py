"""How effects are performed, as charts say it: what it means, what is refused, and when an effect is cancelled."""

from __future__ import annotations

import pytest

from statewright.statecharts import Chart, ChartError
from statewright.statecharts.facts import Policy, RetryPolicy
from tests.statecharts.behaviour import given, read

S = 1_000_000_000


def policies(chart: str | Chart, event: str = "") -> dict[str, Policy | None]:
    """By name, the policies of the effects that the start, or `event`, asks for."""
    run = given(read(chart) if isinstance(chart, str) else chart)
    if event:
        run.when(event)
    return {effect.name: effect.policy for effect in run.step.effects}


def test_a_policy_is_in_nanoseconds_and_what_is_not_said_is_as_documented() -> None:
    chart = """
        states:
          a:
            entry:
              - {perform: {name: pay, retry: {attempts: 3, initial: 500, maximum: PT2M, multiplier: 3, jitter: 0.25,
                           final: [ValueError, '409']}, timeout: 30s, heartbeat: 10s}}
              - {perform: {name: tell, retry: {}}}
              - {call: {service: bank, method: wire, timeout: 1m}}
              - {emit: {subject: paid, cancel: on_exit}}
              - plain
    """
    assert policies(chart) == {
        "pay": Policy(RetryPolicy(3, S // 2, 120 * S, 3.0, 0.25, ("ValueError", "409")), 30 * S, 10 * S),
        "tell": Policy(RetryPolicy(5, S, 60 * S, 2.0, 0.0, ())),
        "bank.wire": Policy(timeout_ns=60 * S),
        "paid": Policy(until="a"),
        "plain": None,
    }


def test_a_chart_that_says_nothing_has_the_canonical_json_that_it_had() -> None:
    plain = read("states: {a: {entry: [{perform: {name: n, cancel: never}}, {call: s.m}, {emit: t}]}}")
    assert b'"entry":[{"type":"perform","name":"n"},{"type":"call","service":"s","method":"m"}' in plain.to_json()
    assert plain.digest == read("states: {a: {entry: [n, {call: s.m}, {emit: t}]}}").digest


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("timeout: soon", "expected a duration such as 30s or PT30S, longer than nothing, got 'soon'"),
        ("timeout: 0", "longer than nothing, got '0ms'"),
        ("timeout: context.n", "expected a duration"),
        ("heartbeat: 30s, timeout: 30s", "expected a heartbeat shorter than the timeout, 30s, got 30s"),
        ("retry: {initial: later}", "got 'later' in perform 'n' in entry of state 'a'"),
        ("retry: {initial: 2m}", "expected a maximum of at least the initial wait, 2m, got 60s"),
        ("retry: {attempts: 0}", "expected 1 to 1,000,000 attempts, got 0"),
        ("retry: {attempts: 2000000}", "expected 1 to 1,000,000 attempts, got 2000000"),
        ("retry: {multiplier: 0.5}", "expected a multiplier of at least 1, got 0.5"),
        ("retry: {multiplier: .inf}", "expected a number"),
        ("retry: {multiplier: .nan}", "expected a number"),
        ("retry: {jitter: 2}", "expected a jitter from 0 to 1, got 2"),
        ("retry: {jitter: -0.1}", "expected a jitter from 0 to 1"),
        ("retry: {attempts: many}", "expected a whole number, got a text"),
        ("retry: {attemps: 3}", "'retry' has no 'attemps'; did you mean 'attempts'?"),
        ("retry: 3", "expected a mapping such as {attempts: 5, initial: 1s}, got 3"),
        ("cancel: on_exti", "expected never or on_exit, got 'on_exti'; did you mean 'on_exit'?"),
        ("heartbeat: -1", "expected a delay"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(how: str, message: str) -> None:
    with pytest.raises(ChartError) as caught:
        read(f"states:\n  a: {{entry: [{{perform: {{name: n, {how}}}}}]}}")
    assert message in str(caught.value)
    (fault,) = caught.value.faults
    assert fault.path.startswith("states.a.entry[0].perform")
    assert fault.line == 3


BOUND = """
initial: first
states:
  first:
    initial: {target: inner, actions: [{perform: {name: begun, cancel: on_exit}}]}
    on:
      stay: {actions: [{perform: {name: stayed, cancel: on_exit}}]}
      go: {target: second, actions: [{if: {guard: 'true', then: [{perform: {name: gone, cancel: on_exit}}]}}]}
      back: {target: past, actions: [{perform: {name: again, cancel: on_exit}}]}
    states:
      inner: {entry: [{perform: {name: deep, cancel: on_exit}}]}
      past: {history: shallow, target: inner}
  second: {}
"""


def test_an_effect_is_bound_to_the_state_that_is_active_after_the_action() -> None:
    def until(event: str = "") -> dict[str, str | None]:
        return {name: policy and policy.until for name, policy in policies(BOUND, event).items()}

    assert until() == {"begun": "first", "deep": "inner"}
    assert until("stay") == {"stayed": "first"}
    assert until("go") == {"gone": "second"}
    assert until("back") == {"again": "first", "deep": "inner"}


@pytest.mark.parametrize(
    "chart",
    [
        "states: {a: {exit: [{perform: {name: n, cancel: on_exit}}]}}",
        "entry: [{perform: {name: n, cancel: on_exit}}]\nstates: {a: {}}",
        "on: {go: {actions: [{perform: {name: n, cancel: on_exit}}]}}\nstates: {a: {}}",
        "states: {p: {type: parallel, states: {a: {}, b: {}}}, q: {on: {go: {target: [a, b], "
        "actions: [{emit: {subject: n, cancel: on_exit}}]}}}}",
    ],
)
def test_where_there_is_no_one_state_it_can_not_be_bound(chart: str) -> None:
    with pytest.raises(
        ChartError, match="can't be cancelled on exit: there is no one state that it leads to or stays in"
    ):
        read(chart)


PASSING = """
initial: a
states:
  a: {on: {through: b, again: {target: a, actions: [{perform: {name: on_the_way, cancel: on_exit}}]}, end: last}}
  b:
    entry: [{perform: {name: bound, cancel: on_exit}}, free]
    always: c
  c: {entry: [{perform: {name: kept, cancel: on_exit}}]}
  last: {type: final, entry: [{perform: {name: at_the_end, cancel: on_exit}}, parting]}
"""


def test_what_is_cancelled_in_the_macrostep_that_asks_for_it_is_not_asked_for() -> None:
    assert list(policies(PASSING, "through")) == ["free", "kept"]
    assert list(policies(PASSING, "again")) == ["on_the_way"]
    assert list(policies(PASSING, "end")) == ["parting"]
