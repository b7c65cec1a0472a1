"""What actions do to the context, the timers and the effects, and what happens when they fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from statewright.statecharts import Effect, Event, TimerSet
from tests.statecharts.behaviour import given, read


def test_assign_sets_fields_from_the_context_as_it_was_before() -> None:
    run = given(
        """
        context: {a: {type: int, default: 1}, b: {type: int, default: 2}, on: {type: bool, default: false}}
        states: {s: {on: {swap: {actions: [{assign: {a: context.b, b: context.a, on: true}}]}}}}
        """
    )
    run.when("swap").then("s", context={"a": 2, "b": 1, "on": True})
    assert run.step.context == {"a": 2, "b": 1, "on": True}


def test_later_actions_see_what_earlier_ones_assigned() -> None:
    actions = (
        "[{assign: {n: context.n + 1}}, {assign: {n: context.n * 10}}, {perform: {name: report, data: context.n}}]"
    )
    run = given(f"context: {{n: int}}\nstates: {{s: {{on: {{go: {{actions: {actions}}}}}}}}}", {"n": 1}).when("go")
    assert run.step.effects == (Effect("report", "perform", 20, "s"),)


def test_values_may_be_nested_and_hold_literals() -> None:
    run = given(
        """
        context: {who: string?, all: {type: dyn, default: null}}
        states:
          s: {on: {go: {actions: [{assign: {all: {to: context.who, n: 1, list: [event.data.x, "'text'", true]}}}]}}}
        """
    )
    assert run.when("go", {"x": 2}).context["all"] == {"to": None, "n": 1, "list": [2, "text", True]}


def test_python_functions_guard_assign_and_compute_data() -> None:
    def even(context: Any, event: Event) -> bool:
        return context.n % 2 == 0

    def count(context: Any, event: Event) -> Mapping[str, Any]:
        return {"n": context["n"] + event.data}

    def summary(context: Any, event: Event) -> dict[str, Any]:
        return {"now": context.n}

    run = given(
        """
        context: {n: {type: int, default: 0}}
        states:
          s:
            on:
              add:
                guard: {function: even}
                actions: [{assign: {function: count}}, {perform: {name: tell, data: {function: summary}}}]
        """,
        even=even,
        count=count,
        summary=summary,
    )
    run.when("add", 3).then("s", context={"n": 3}, effects=["tell"])
    assert run.step.effects[0].data == {"now": 3}
    run.when("add", 1).refused("guard 'even' of state 's' was false")


def test_functions_cannot_change_the_context_in_place() -> None:
    def meddle(context: Any, event: Event) -> bool:
        context["n"] = 5
        return True

    chart = "context: {n: int}\nstates: {s: {on: {go: {target: s, guard: {function: meddle}}}}}"
    given(chart, {"n": 1}, meddle=meddle).when("go").refused("TypeError", "read-only").then("s", context={"n": 1})


def test_a_function_that_raises_is_a_false_guard_with_its_reason() -> None:
    def broken(context: Any, event: Event) -> bool:
        raise KeyError("limit")

    chart = "states: {s: {on: {go: {target: s, guard: {function: broken}}}}}"
    given(chart, broken=broken).when("go").refused("guard 'broken' of state 's' failed: KeyError: 'limit'")


def test_a_guard_that_gives_no_bool_is_refused() -> None:
    def vague(context: Any, event: Event) -> Any:
        return "yes"

    chart = "states: {s: {on: {go: {target: s, guard: {function: vague}}}}}"
    given(chart, vague=vague).when("go").refused("expected true or false, got 'yes'")


EFFECTS = """
context: {who: {type: string, default: ann}}
states:
  a:
    on:
      go:
        target: b
        actions:
          - notify
          - perform: {name: notify, data: {to: context.who}}
          - emit: {subject: documents.done, data: {by: context.who}}
          - emit: {subjectexpr: "'documents.' + context.who"}
          - call: {service: billing, method: charge, data: 5}
          - call: mail.send
          - log: {label: who, expr: context.who}
          - log: "{'n': 1}"
  b: {entry: [{perform: archive}]}
"""


def test_effects_are_named_in_order_with_their_evaluated_data() -> None:
    step = given(EFFECTS).when("go").step
    assert step.effects == (
        Effect("notify", "perform", None, "a"),
        Effect("notify", "perform", {"to": "ann"}, "a"),
        Effect("documents.done", "emit", {"by": "ann"}, "a"),
        Effect("documents.ann", "emit", None, "a"),
        Effect("billing.charge", "call", 5, "a"),
        Effect("mail.send", "call", None, "a"),
        Effect("archive", "perform", None, "b"),
    )
    assert step.logs == ("who: ann", '{"n":1}')
    assert read(EFFECTS).handler_names == ("notify", "archive")


def test_if_takes_the_first_branch_that_holds() -> None:
    chart = """
    context: {n: int}
    states:
      s:
        on:
          go:
            actions:
              - if:
                  guard: context.n > 10
                  then: [big]
                  else: [{if: {guard: context.n > 5, then: middle, else: small}}]
    """
    for n, effect in ((11, "big"), (6, "middle"), (1, "small")):
        given(chart, {"n": n}).when("go").then("s", effects=[effect])


TIMERS = """
context: {wait: {type: string, default: 2h}, ms: {type: int, default: 250}}
states:
  a:
    after:
      24h: {actions: [remind]}
      context.wait: b
      context.ms: {target: b, guard: "false"}
    on: {leave: b, again: a}
  b: {}
"""


def test_entering_a_state_sets_its_timers_and_leaving_cancels_them() -> None:
    run = given(TIMERS).then("a", timers=["set:after.a.0", "set:after.a.1", "set:after.a.2"])
    delays = [timer.delay_ns for timer in run.step.timers if isinstance(timer, TimerSet)]
    assert delays == [24 * 3600 * 10**9, 2 * 3600 * 10**9, 250 * 10**6]
    run.when("leave").then("b", timers=["cancelled:after.a.0", "cancelled:after.a.1", "cancelled:after.a.2"])


def test_a_fired_timer_is_not_cancelled_but_the_others_are() -> None:
    run = given(TIMERS).when("after.a.0").then("a", timers=[], effects=["remind"])
    run.when("after.a.1").then("b", timers=["cancelled:after.a.0", "cancelled:after.a.2"])


def test_reentering_a_state_sets_its_timers_anew() -> None:
    timers = [f"{kind}:after.a.{index}" for kind in ("cancelled", "set") for index in range(3)]
    given(TIMERS).when("again").then("a", timers=timers)


def test_a_wildcard_does_not_swallow_the_timers_of_a_state_around_it() -> None:
    run = given("states: {a: {after: {1h: b}, states: {c: {on: {'*': {actions: [any]}, after: c}}}}, b: {}}")
    run.when("other").then("c", effects=["any"])
    run.when("after.a.0").then("b")


def test_transitions_of_one_delay_share_a_timer() -> None:
    run = given(
        "context: {n: int}\nstates: {a: {after: {1h: [{target: b, guard: context.n > 1}, c]}}, b: {}, c: {}}", {"n": 1}
    )
    run.then("a", timers=["set:after.a.0"])
    run.when("after.a.0").then("c")


def test_send_sets_a_timer_and_cancel_takes_it_back() -> None:
    run = given(
        """
        states:
          a:
            on:
              go:
                actions: [{send: soon}, {send: {event: later, delay: 1h, id: mine, data: event.data}}, {send: soon}]
              stop: {actions: [{cancel: mine}]}
        """
    )
    assert run.when("go", 7).step.timers == (
        TimerSet("send.1", "soon", 0),
        TimerSet("mine", "later", 3600 * 10**9, 7, "mine"),
        TimerSet("send.2", "soon", 0),
    )
    assert run.step.snapshot.serial == 2
    run.when("stop").then("a", timers=["cancelled:mine"])


FAILING = """
context: {n: {type: int, default: 1}}
states:
  a: {on: {go: {target: b, actions: [first, {assign: {n: event.data.n}}, never]}}}
  b: {entry: [arrived]}
"""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"m": 1}, "Key not found in map"),
        ({"n": "text"}, "field 'n' expected int, got string 'text'"),
        ({"n": 2**63}, "expected int, got int 9223372036854775808 (more than 64 bits)"),
        (None, "assign 'n'"),
    ],
)
def test_a_failing_action_that_nothing_handles_refuses_the_whole_macrostep(data: Any, why: str) -> None:
    run = given(FAILING).when("go", data)
    run.refused("assign 'n' in transition 'go' of state 'a' failed", why).then("a", context={"n": 1})


def test_a_failing_action_that_is_handled_ends_its_block_and_goes_on() -> None:
    run = given(FAILING.replace("b: {entry: [arrived]}", "b: {entry: [arrived], on: {error.execution: c}}\n  c: {}"))
    run.when("go").then("c", effects=["first", "arrived"], raised=("error.execution",))


def test_a_failing_entry_action_of_the_final_state_is_not_lost() -> None:
    given("states: {a: {on: {go: f}}, f: {type: final, entry: [{raise: x}, {log: 1 / 0}]}}").when("go").refused(
        "divide by zero"
    )
    given("states: {a: {on: {go: f}}, f: {type: final, output: 1 / 0}}").when("go").refused("output of state 'f'")


def test_a_start_that_fails_says_why_and_is_in_no_state() -> None:
    run = given("states: {a: {entry: [{log: 1 / 0}]}}")
    assert "log in entry of state 'a' failed" in run.step.reason
    assert run.step.snapshot.configuration == 0


def test_a_delay_that_cannot_be_computed_refuses_the_macrostep() -> None:
    chart = "context: {wait: string}\nstates: {a: {on: {go: b}}, b: {after: {context.wait: a}}}"
    given(chart, {"wait": "soon"}).when("go").refused("delay 'context.wait'", "expected a duration, got string 'soon'")


def test_an_expression_that_never_ends_is_stopped() -> None:
    loop = "[1,2,3,4,5,6,7,8,9,10]"
    text = "1"
    for name in "abcdef":
        text = f"{loop}.map({name}, {text})"
    given(f"states: {{a: {{on: {{go: {{actions: [{{log: '{text}'}}]}}}}}}}}").when("go").refused("budget")


def test_data_too_deep_for_a_context_is_refused() -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    chart = "context: {x: dyn?}\nstates: {a: {on: {go: {actions: [{assign: {x: event.data}}]}}}}"
    given(chart).when("go", deep).refused("at most 64 deep")


def test_a_chart_that_goes_round_for_ever_leaves_no_heap_of_verdicts() -> None:
    chart = """
    states: {a: {on: {go: b}}, b: {always: {target: c, guard: "!In('a')"}}, c: {always: {target: b, guard: "!In('a')"}}}
    """
    assert len(given(chart).when("go").step.guards) == 100
