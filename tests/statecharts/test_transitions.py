"""Which transitions are taken, and what they leave and enter."""

from __future__ import annotations

from tests.statecharts.behaviour import given

NESTED = """
initial: a
states:
  a:
    initial: a2
    states:
      a1: {on: {inner: a2}}
      a2: {on: {up: b}}
    on: {inner: b, again: a, stay: {target: a1, internal: true}, leave: {target: a1}}
  b: {on: {back: a1}}
"""


def test_a_chart_begins_where_its_initials_lead() -> None:
    given(NESTED).then("a2", entered=("a", "a2"), status="active")


def test_without_an_initial_the_first_child_in_document_order_is_entered() -> None:
    given("states: {x: {states: {y: {}, z: {}}}, w: {}}").then("y")


def test_a_target_below_enters_the_states_above_it_without_their_initial() -> None:
    given(NESTED).when("up").when("back").then("a1", entered=("a", "a1"), exited=("b",))


def test_an_inner_transition_goes_before_an_outer_one() -> None:
    given(NESTED).when("stay").when("inner").then("a2", exited=("a1",))


def test_an_event_that_no_inner_state_handles_goes_to_the_outer_one() -> None:
    given(NESTED).when("inner").then("b", exited=("a2", "a"), entered=("b",))


def test_a_self_transition_leaves_and_enters_its_state() -> None:
    given(NESTED).when("again").then("a2", exited=("a2", "a"), entered=("a", "a2"))


def test_an_internal_transition_does_not_leave_its_source() -> None:
    given(NESTED).when("stay").then("a1", exited=("a2",), entered=("a1",))


def test_an_external_transition_to_a_child_leaves_its_source() -> None:
    given(NESTED).when("leave").then("a1", exited=("a2", "a"), entered=("a", "a1"))


def test_a_targetless_transition_acts_and_stays() -> None:
    run = given("states: {a: {on: {ping: {actions: [pong]}}, exit: [left], entry: [came]}}")
    run.when("ping").then("a", effects=["pong"], exited=(), entered=())


def test_the_first_transition_in_document_order_whose_guard_holds_is_taken() -> None:
    run = given(
        """
        context: {n: int}
        states:
          a: {on: {go: [{target: low, guard: context.n < 10}, {target: high, guard: context.n > 10}, same]}}
          low: {}
          high: {}
          same: {}
        """,
        {"n": 12},
    )
    run.when("go").then("high")
    assert [(verdict.guard, verdict.passed) for verdict in run.step.guards] == [
        ("context.n < 10", False),
        ("context.n > 10", True),
    ]


def test_a_descriptor_matches_by_whole_tokens() -> None:
    chart = """
    states:
      a: {on: {error.send: one, "error.*": two, "*": three}}
      one: {}
      two: {}
      three: {}
    """
    given(chart).when("error.send").then("one")
    given(chart).when("error.send.failed").then("one")
    given(chart).when("error.sending").then("two")
    given(chart).when("error").then("two")
    given(chart).when("errors").then("three")


def test_one_transition_may_name_several_events() -> None:
    chart = "states: {a: {on: {yes ok: b}, transitions: [{events: [no, never], target: c}]}, b: {}, c: {}}"
    for event, leaf in (("yes", "b"), ("ok", "b"), ("no", "c"), ("never", "c")):
        given(chart).when(event).then(leaf)


def test_a_root_transition_works_from_everywhere() -> None:
    run = given("on: {abort: {target: gone}}\nstates: {a: {states: {b: {on: {go: c}}}}, c: {}, gone: {}}")
    run.when("go").when("abort").then("gone", exited=("c",))


def test_eventless_transitions_are_followed_until_none_is_enabled() -> None:
    run = given(
        """
        context: {n: int}
        states:
          a: {on: {go: b}}
          b: {always: [{target: c, guard: context.n > 1}, d]}
          c: {always: e}
          d: {}
          e: {}
        """,
        {"n": 2},
    )
    run.when("go").then("e", exited=("a", "b", "c"), entered=("b", "c", "e"))
    assert [taken.event for taken in run.step.taken] == ["go", "", ""]


def test_internal_events_are_handled_in_order_before_anything_external() -> None:
    run = given(
        """
        states:
          a: {on: {go: {target: b, actions: [{raise: first}, {raise: second}]}}}
          b: {entry: [{raise: third}], on: {first: {actions: [{raise: fourth}]}, third: c}}
          c: {on: {fourth: d}}
          d: {}
        """
    )
    run.when("go").then("d", raised=("first", "second", "third", "fourth"))


def test_guards_may_ask_the_configuration() -> None:
    chart = """
    states:
      p:
        type: parallel
        states:
          one: {states: {a: {on: {go: b}}, b: {}}}
          two: {states: {x: {on: {check: {target: y, guard: "In('b')"}}}, y: {}}}
    """
    given(chart).when("check").refused("guard \"In('b')\" of state 'x' was false")
    given(chart).when("go").when("check").then("b", "y")


def test_a_refusal_says_where_it_is_and_what_it_would_accept() -> None:
    given(NESTED).when("nonsense").refused("no transition for 'nonsense' in state 'a2'", "accepts", "'up'")


def test_a_refusal_says_which_guard_was_false() -> None:
    chart = "context: {n: int}\nstates: {a: {on: {go: {target: b, guard: context.n < 3}}}, b: {}}"
    given(chart, {"n": 3}).when("go").refused("guard 'context.n < 3' of state 'a' was false")


def test_a_refusal_says_why_a_guard_could_not_be_evaluated() -> None:
    chart = "states: {a: {on: {go: {target: b, guard: event.data.n < 3}}}, b: {}}"
    run = given(chart).when("go", {"m": 1}).refused("guard 'event.data.n < 3' of state 'a' failed", "n")
    assert run.step.guards[0].error
    given(chart).when("go", {"n": 1}).then("b")


def test_a_guard_that_fails_lets_the_next_one_decide() -> None:
    given("states: {a: {on: {go: [{target: b, guard: event.data.n < 3}, c]}}, b: {}, c: {}}").when("go").then("c")


def test_a_chart_that_goes_round_for_ever_is_stopped() -> None:
    chart = "states: {start: {on: {go: a}}, a: {always: b}, b: {always: a}}"
    given(chart).when("go").refused("did not settle within 1000 microsteps", "'a'", "'b'")
    assert "did not settle" in given("states: {a: {entry: [{raise: x}], on: {x: a}}}").step.reason
