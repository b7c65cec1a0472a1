"""Shortcuts answer what CEL answers, or nothing: any text is evaluated with them and without, on any data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statewright.statecharts.context import Context, ContextType, parse_type
from statewright.statecharts.definition import Declaration
from statewright.statecharts.expressions import Expression, ExpressionError, Expressions
from statewright.statecharts.facts import Event
from statewright.statecharts.shortcuts import CHARS_MAX, UNKNOWN, shortcut

EMPTY: dict[str, Any] = {"n": 0, "d": 0.0, "s": "", "b": False, "l": [], "m": {}, "q": None}
TYPES = ("int", "double", "string", "bool", "list(string)", "map(string, dyn)", "int?")
TYPE = ContextType({name: (parse_type(text), Declaration(text)) for name, text in zip(EMPTY, TYPES, strict=True)})
EXPRESSIONS = Expressions(TYPE, lambda state, configuration: False)

INTS = st.sampled_from([0, 1, -1, 2, 7, 2**62, 2**63 - 1, -(2**63)])
DOUBLES = st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e308, -1e308, 5e-324])
TEXTS = st.sampled_from(["", "a", "b", "ab", "ä", "\U0001f600", "\uffff", "1", "\0", "true"])
JSON = st.recursive(
    st.none() | st.booleans() | INTS | DOUBLES | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    max_leaves=4,
)
CONTEXTS = st.fixed_dictionaries({
    "n": INTS, "d": DOUBLES, "s": TEXTS, "b": st.booleans(), "l": st.lists(TEXTS, max_size=2),
    "m": st.dictionaries(st.sampled_from(["x", "y"]), JSON, max_size=2), "q": st.none() | INTS,
})  # fmt: skip
PLACES = st.sampled_from(
    ["context.n", "context.d", "context.s", "context.b", "context.q", "context.m.x", "event.name", "event.data.x",
     "event.data.y", "event.data.x.y", "event . data . x"]
)  # fmt: skip
LITERALS = st.sampled_from(["0", "1", "-1", "9223372036854775807", "0.5", "1.0", "''", '"a"', "'ä'", "true", "false"])
ASKED = st.sampled_from(
    ["has(event.data.x)", "has(event.data.x.y)", "has(context.m.x)", "size(context.s)", "size(context.l)",
     "size(context.m)", "size(event.data.x)"]
)  # fmt: skip
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "&&", "||"])
TREES = st.recursive(
    PLACES | LITERALS | ASKED,
    lambda inner: (
        st.tuples(inner, SIGNS, inner).map(" ".join)
        | inner.map("!{}".format)
        | inner.map("({})".format)
        | st.tuples(inner, inner, inner).map(lambda parts: "{} ? {} : {}".format(*parts))
    ),
    max_leaves=6,
)


def compiled(text: str) -> Expression | None:
    try:
        return EXPRESSIONS.compile(text)
    except ExpressionError:
        return None


def answer(expression: Expression, context: Context, event: Event) -> tuple[type, Any]:
    try:
        value = expression.evaluate(context, event, 0)
    except ExpressionError as error:
        return ExpressionError, str(error)
    return type(value), repr(value)


@given(
    text=TREES,
    fields=CONTEXTS,
    data=JSON | st.dictionaries(st.sampled_from(["x", "y"]), JSON, max_size=2),
)
@example(text="context.n + 1 == context.n", fields=EMPTY, data=None)
@example(text="event.data.x || true", fields=EMPTY, data={"x": "text"})
@example(text="event.data.x && false", fields=EMPTY, data={})
@example(text="1 == 1.0 ? 'one' : 'two'", fields=EMPTY, data=None)
@example(text="size(context.s) == 0", fields=EMPTY | {"s": "\0"}, data=None)
@settings(max_examples=400)
def test_shortcuts_answer_as_cel_does(text: str, fields: dict[str, Any], data: Any) -> None:
    short, by_cel = compiled(text), compiled(f"{text} // which the shortcuts don't know")
    assert (short is None) == (by_cel is None)
    if short is None or by_cel is None:
        return
    context, event = TYPE.start(fields), Event("go", data)
    assert answer(short, context, event) == answer(by_cel, context, event)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.data.by != context.s", True),
        ('has(event.data.comment) ? event.data.comment : ""', ""),
        ("'changes: ' + context.s", "changes: ann"),
        ("context.n + 1", 8),
        ("context.n <= 7 || size(context.l) >= 2", True),
        ("!(context.n * 2 - 1 == 13 && event.name == 'go')", False),
    ],
)
def test_what_charts_say_most_is_answered_without_cel(text: str, expected: Any) -> None:
    found = shortcut(text)
    assert found is not None
    assert found({"n": 7, "s": "ann", "l": []}, Event("go", {"by": "bob"})) == expected


@pytest.mark.parametrize(
    "text",
    ["event.data.by.startsWith('a')", "context.l[0]", "[1]", "-context.n", "1u", "1e3", "r'a'", "'''a'''", "'a\\n'",
     "size('a')", "event.data", "context", "x in context.l", "now", "1 +" + "+ 1" * CHARS_MAX],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_cel(text: str) -> None:
    assert shortcut(text) is None


@pytest.mark.parametrize(
    "text",
    ["event.data.gone == 'a'", "context.n + 9223372036854775807", "context.q == 1", "context.n == 1.0", "context.l"],
)
def test_what_is_unusual_is_left_to_cel(text: str) -> None:
    found = shortcut(text)
    assert found is not None
    assert found({"n": 7, "q": None, "l": []}, Event("go", {})) is UNKNOWN
