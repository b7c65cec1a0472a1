"""Contexts, types, durations and expressions by themselves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statewright.statecharts import Context, ContextError, Event
from statewright.statecharts.context import parse_type
from statewright.statecharts.durations import DELAY_NS_MAX, format_duration, parse_duration
from tests.statecharts.behaviour import read

HOUR = 3600 * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("24h", 24 * HOUR),
        ("50ms", 50_000_000),
        ("1h30m", HOUR * 3 // 2),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("0s", 0),
        ("2d", 48 * HOUR),
        ("PT24H", 24 * HOUR),
        ("P1DT12H", 36 * HOUR),
        ("P1W", 168 * HOUR),
        ("PT0.25S", 250_000_000),
    ],
)
def test_durations_are_exact(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "5", "h", "24 hours", "-1s", "1h 30m x", "P", "PT", "P1M", "P1Y", "PT1D", "9" * 30 + "h", "١h", "1e3s"]
)
def test_what_is_no_duration_is_none(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(0, DELAY_NS_MAX))
def test_a_formatted_duration_reads_back(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@pytest.mark.parametrize(
    ("text", "normal"),
    [("int", "int"), (" list( string ) ", "list(string)"), ("map(string,list(int?))?", "map(string, list(int?))?")],
)
def test_types_have_a_normal_form(text: str, normal: str) -> None:
    assert parse_type(text).text == normal


@pytest.mark.parametrize("text", ["", "integer", "list", "list(int", "map(int, int)", "int int", "int??", "list(" * 30])
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|nested"):
        parse_type(text)


FIELDS = read(
    """
    context:
      amount: int
      rate: {type: double, default: 1}
      who: string?
      tags: {type: list(string), default: [a]}
      rest: {type: dyn, default: null}
    states: {s: {}}
    """
).machine


def test_defaults_are_filled_in_in_declared_order() -> None:
    context = FIELDS.start({"amount": 5}).context
    assert list(context.items()) == [("amount", 5), ("rate", 1.0), ("who", None), ("tags", ["a"]), ("rest", None)]
    assert isinstance(context["rate"], float)


def test_defaults_are_not_shared() -> None:
    FIELDS.start({"amount": 5}).context["tags"].append("b")
    assert FIELDS.start({"amount": 5}).context["tags"] == ["a"]


@pytest.mark.parametrize(
    ("given_context", "message"),
    [
        ({}, "field 'amount' (int) is missing"),
        ({"amount": "5"}, "field 'amount' expected int, got string '5'"),
        ({"amount": 5.5}, "field 'amount' expected int, got double 5.5"),
        ({"amount": True}, "field 'amount' expected int, got bool True"),
        ({"amount": 2**63}, "field 'amount' expected int"),
        ({"amount": None}, "field 'amount' expected int, got null"),
        ({"amount": 1, "colour": 2}, "there is no field 'colour'; the chart declares amount, rate, who, tags, rest"),
        ({"amount": 1, "tags": ["x", 3]}, "field 'tags' expected list(string), got list ['x', 3] (at tags[1]"),
        ({"amount": 1, "rest": 2**64}, "field 'rest': expected an int of 64 bits"),
        ({"amount": 1, "rest": {1: 2}}, "field 'rest': expected JSON, got a mapping with the key 1"),
        ({"amount": 1, "rest": [float("nan")]}, "field 'rest': expected JSON, got nan"),
        ({"amount": 1, "rest": object()}, "field 'rest': expected JSON, got object"),
    ],
)
def test_a_context_that_does_not_fit_is_refused_field_by_field(given_context: dict[str, Any], message: str) -> None:
    with pytest.raises(ContextError) as caught:
        FIELDS.start(given_context)
    assert message in str(caught.value)


def test_every_problem_of_a_context_is_named_at_once() -> None:
    with pytest.raises(ContextError, match=r"'amount'.*missing.*'who' expected string\?.*no field 'zz'"):
        FIELDS.start({"who": 5, "zz": 1})


def test_a_context_is_a_read_only_mapping_with_attributes() -> None:
    context = Context(amount=5)
    assert context.amount == context["amount"] == 5
    with pytest.raises(AttributeError, match="no field 'amont'; it has amount"):
        _ = context.amont
    for change in (lambda: context.update(a=1), lambda: context.pop("amount"), lambda: setattr(context, "amount", 6)):
        with pytest.raises(TypeError, match="read-only"):
            change()
    assert copy.deepcopy(context) == pickle.loads(pickle.dumps(context)) == context


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("context.n + 1", 6),
        ("context.who == null ? 'nobody' : context.who", "nobody"),
        ("context.tags.exists(tag, tag == 'b')", True),
        ("context.nested.a.b", 1),
        ("context", {"n": 5, "nested": {"a": {"b": 1}}, "tags": ["a", "b"], "who": None}),
        ("size(context) + context.n", 9),
        ("event.name + '!'", "go!"),
        ("event.data.list[1]", 2),
        ("[event.data, context.n]", [{"list": [1, 2]}, 5]),
        ("duration('90s')", "1m30s"),
        ("timestamp('2024-02-29T12:00:00Z')", "2024-02-29T12:00:00Z"),
        ("{'b': 1, 'a': 2}", {"a": 2, "b": 1}),
        ("'context.missing is text'", "context.missing is text"),
        ("In('s')", True),
        ("in_state('s') && !In(event.name)", True),
        ("'a-b'.split('-')", ["a", "b"]),
        ("math.greatest(1, context . n)", 5),
    ],
)
def test_expressions_see_the_context_the_event_and_the_configuration(text: str, value: Any) -> None:
    machine = read(
        f"""
        context:
          n: {{type: int, default: 5}}
          who: string?
          tags: {{type: list(string), default: [a, b]}}
          nested: {{type: dyn, default: {{a: {{b: 1}}}}}}
        states: {{s: {{on: {{go: {{actions: [{{perform: {{name: x, data: {text!r}}}}}]}}}}}}}}
        """.replace("\\'", "''")
    ).machine
    step = machine.step(machine.start({}).snapshot, Event("go", {"list": [1, 2]}))
    assert step.reason == ""
    assert step.effects[0].data == value
