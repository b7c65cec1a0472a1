"""A broken chart is refused when it is loaded: every fault at once, each with its place."""

# ruff: noqa: E501 (the tables below read best with one case a line)
from __future__ import annotations

import contextlib
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statewright.statecharts import Chart, ChartError, ChartNotFound, Fault, load_chart
from statewright.statecharts.documents import DEPTH_MAX, DOCUMENT_BYTES_MAX, read_document
from statewright.statecharts.validation import STATES_MAX


def faults_of(tmp_path: Path, text: str, suffix: str = "yaml", **functions: Any) -> tuple[Fault, ...]:
    path = tmp_path / f"broken.{suffix}"
    path.write_text(dedent(text).lstrip("\n"))
    with pytest.raises(ChartError) as caught:
        load_chart(path, functions)
    return caught.value.faults


# Each: the lines of a chart after its name, the line of the fault, its state, its path, and what its message says.
FAULTS = [
    ("states: {a: {on: {go: bb}}, b: {}}", 2, "a", "states.a.on.go.target", "unknown target 'bb'; did you mean 'b'?"),
    ("states:\n  a:\n    on:\n      go:\n        - b\n        - {target: c}\n  b: {}", 7, "a", "states.a.on.go[1].target", "'c'"),
    ("states: {a: {on: {go: {target: a, guard: {function: nope}}}}}", 2, "a", "states.a.on.go.guard", "no function 'nope'"),
    ("states:\n  a:\n    on:\n      go: {guard: 1 +}", 5, "a", "states.a.on.go.guard", "Syntax error"),
    ("states: {a: {on: {go: {guard: context.x > 1}}}}", 2, "a", "states.a.on.go.guard", "undeclared reference to 'context.x'"),
    ("context: {n: int}\nstates: {a: {on: {go: {guard: context.n}}}}", 3, "a", "states.a.on.go.guard", "bool, got int"),
    ("context: {n: int}\nstates: {a: {on: {go: {guard: context.n > 'x'}}}}", 3, "a", "states.a.on.go.guard", "no matching overload"),
    ("states: {a: {on: {go: {guard: In('b')}}}}", 2, "a", "states.a.on.go.guard", "unknown state 'b'"),
    ("context: {n: int?}\nstates: {a: {on: {go: {guard: has(context.n)}}}}", 3, "a", "states.a.on.go.guard", "compare it with null"),
    ("states: {a: {on: {go: {guard: event.nme == 'x'}}}}", 2, "a", "states.a.on.go.guard", "event.name and event.data"),
    ("context: {n: int}\nstates: {a: {entry: [{assign: {n: \"'x'\"}}]}}", 3, "a", "states.a.entry[0].assign.n", "int for field 'n', got string"),
    ("context: {n: int}\nstates: {a: {entry: [{assign: {n: true}}]}}", 3, "a", "states.a.entry[0].assign.n", "expected int, got bool True"),
    ("states: {a: {entry: [{assign: {n: 1}}]}}", 2, "a", "states.a.entry[0].assign.n", "there is no field 'n'"),
    ("initial: b\nstates: {a: {}}", 2, "", "initial", "unknown initial 'b'"),
    ("states: {a: {initial: b, states: {c: {}}}, b: {}}", 2, "a", "states.a.initial", "not inside 'a'"),
    ("states: {a: {initial: a, states: {c: {}}}}", 2, "a", "states.a.initial", "not inside 'a'"),
    ("states:\n  a:\n    states:\n      b: {}\n  b: {}", 6, "b", "states.b", "given twice (the first is on line 5)"),
    ("states: {a: {}, h: {history: deep}}", 2, "h", "states.h", "inside a compound or parallel state"),
    ("states: {a: {states: {b: {}, h: {history: deep, target: c}}}, c: {}}", 2, "h", "states.a.states.h.target", "not inside 'a'"),
    ("states: {a: {states: {b: {states: {c: {}}}, h: {history: shallow, target: c}}}}", 2, "h", "states.a.states.h.target", "a child of 'a'"),
    ("states: {a: {initial: h, states: {b: {}, h: {history: deep}}}}", 2, "h", "states.a.states.h", "to have a target"),
    ("states: {a: {type: final, states: {b: {}}}}", 2, "a", "states.a.states", "no states inside a state of type final"),
    ("states: {a: {type: final, on: {go: a}}}", 2, "a", "states.a.on.go", "no transitions from a state of type final"),
    ("states: {a: {type: compound}}", 2, "a", "states.a", "expected states inside"),
    ("states: {a: {type: parallel, states: {f: {type: final}}}}", 2, "a", "states.a.states", "got the final state 'f'"),
    ("states: {a: {type: parallel, initial: b, states: {b: {}}}}", 2, "a", "states.a.initial", "no initial on a state of type parallel"),
    ("states: {a: {output: 1}}", 2, "a", "states.a.output", "only on a final state"),
    ("states: {a: {after: {24 hours: a}}}", 2, "a", "states.a.after.24 hours", "a duration such as 24h"),
    ("states: {a: {after: {'1 > 0': a}}}", 2, "a", "states.a.after.1 > 0", "got bool"),
    ("states: {a: {on: {go: {target: [b, c]}}}, b: {}, c: {}}", 2, "a", "states.a.on.go.target", "cannot be active together"),
    ("states: {a b: {}}", 2, "a b", "states.a b", "a state id of letters"),
    ("states: {a: {typ: final}}", 2, "a", "states.a.typ", "did you mean 'type'?"),
    ("states: {a: {type: finale}}", 2, "a", "states.a.type", "one of atomic, compound"),
    ("states: {a: {entry: [{rais: x}]}}", 2, "a", "states.a.entry[0]", "did you mean 'raise'?"),
    ("states: {a: {entry: [{raise: x, log: y}]}}", 2, "a", "states.a.entry[0]", "an action with one key, got raise, log"),
    ("states: {a: {on: {go: }}}", 2, "a", "states.a.on.go", "got null"),
    ("states: {a: {on: {'a..b': a}}}", 2, "a", "states.a.on.a..b", "an event name such as"),
    ("states: {}", 2, "", "states", "at least one state"),
    ("states: [{id: b}, a]", 2, "", "states[1]", "a mapping with an id"),
    ("colour: red\nstates: {a: {}}", 2, "", "colour", "the chart has no 'colour'"),
    ("context: {n: number}\nstates: {a: {}}", 2, "", "context.n.type", "expected one of int"),
    ("context: {n: {type: int, default: x}}\nstates: {a: {}}", 2, "", "context.n.default", "expected int, got string 'x'"),
    ("context: {in: int}\nstates: {a: {}}", 2, "", "context.in", "no reserved word"),
    ("version: 1.5\nstates: {a: {}}", 2, "", "version", "put it in quotes"),
    ("subscribe: [{subject: x, instance: data.id}]\nstates: {a: {}}", 2, "", "subscribe[0]", "either 'event'"),
    ("subscribe: [{subject: x, instance: body.id, event: e}]\nstates: {a: {}}", 2, "", "subscribe[0].instance", "subject, headers and data"),
    ("subscribe: [{subject: a..b, instance: data.id, event: e}]\nstates: {a: {}}", 2, "", "subscribe[0].subject", "expected a subject"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "state", "path", "message"), FAULTS)
def test_a_fault_has_its_place(tmp_path: Path, text: str, line: int, state: str, path: str, message: str) -> None:
    faults = faults_of(tmp_path, f"name: broken\n{text}")
    assert [(fault.line, fault.state, fault.path) for fault in faults] == [(line, state, path)]
    assert message in faults[0].message
    assert f"line {line}, {path}: " in str(faults[0])


def test_all_faults_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    faults = faults_of(
        tmp_path,
        """
        name: two words
        context:
          n: int
        states:
          a:
            on: {go: nowhere}
            entry: [{assign: {n: "'text'"}}, {log: 1 +}]
          b:
            type: final
            states: {a: {}}
        """,
    )
    assert [fault.line for fault in faults] == [1, 6, 7, 7, 10, 10]
    assert {fault.state for fault in faults} == {"", "a", "b"}


def test_a_json_chart_has_lines_too(tmp_path: Path) -> None:
    text = json.dumps({"name": "x", "states": {"a": {"on": {"go": "b"}}}}, indent=1)
    assert [(fault.line, fault.path) for fault in faults_of(tmp_path, text, "json")] == [(6, "states.a.on.go.target")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name: x\nstates: {a: {}}\nname: y", 3, "'name' is given twice"),
        ("name: x\nstates:\n  a: {}\n  a: {}", 4, "'a' is given twice"),
        ("name: x\nstates: [", 2, "not valid YAML"),
        ("name: x\n---\nname: y", 2, "one document"),
        ("", 1, "empty document"),
        ("name: !!python/name:os.system x", 1, "no YAML tag"),
        ("name: x\nmeta: {n: .nan}", 2, "JSON can hold"),
        ("name: x\nstates: *nothing", 2, "alias"),
        ("name: x\nstates: &s {a: {states: *s}}", 2, "alias"),
        ("? [a, b]\n: c", 1, "a plain word"),
        ("- a\n- b", None, "expected a chart"),
        ("just words", None, "expected a chart"),
    ],
)
def test_a_text_that_is_no_chart_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int | None, message: str
) -> None:
    faults = faults_of(tmp_path, text)
    assert message in faults[0].message
    assert faults[0].line == line or line is None


def test_json_is_strict(tmp_path: Path) -> None:
    for text, message in (
        ("{name: x}", "not valid JSON"),
        ('{"a": NaN}', "NaN"),
        ("{}", "expected a name"),
        ("[" * 90_000, ""),
    ):
        assert message in faults_of(tmp_path, text, "json")[0].message


def test_alias_bombs_depth_and_size_are_bounded(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "aliases count in full" in faults_of(tmp_path, bomb)[0].message
    deep = "meta: " + "[" * (DEPTH_MAX + 50) + "]" * (DEPTH_MAX + 50)
    assert f"at most {DEPTH_MAX} levels" in faults_of(tmp_path, deep)[0].message
    assert "bytes" in faults_of(tmp_path, "#" * (DOCUMENT_BYTES_MAX + 1))[0].message
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: x\nmeta: {a: \xe9}")
    with pytest.raises(ChartError, match=r"line 2.*UTF-8"):
        load_chart(path)


def test_aliases_within_the_bounds_are_copies(tmp_path: Path) -> None:
    path = tmp_path / "chart.yaml"
    path.write_text("name: x\nstates:\n  a: {on: &both {go: b, back: a}}\n  b: {on: *both}\n")
    assert load_chart(path).machine.accepts(0b111) == ("go", "back")


def test_too_many_states_and_too_deep_ones_are_refused() -> None:
    with pytest.raises(ChartError, match=f"at most {STATES_MAX} states"):
        Chart.from_tree({"name": "x", "states": {f"s{i}": {} for i in range(STATES_MAX + 1)}})
    tree: dict[str, Any] = {}
    for depth in range(150):
        tree = {"states": {f"s{depth}": tree}}
    with pytest.raises(ChartError, match="nested at most 100 deep"):
        Chart.from_tree({"name": "x", **tree})
    for depth in range(3000):
        tree = {"states": {f"t{depth}": tree}}
    with pytest.raises(ChartError, match="levels of nesting"):
        Chart.from_tree({"name": "x", **tree})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.yaml", "there is no such file"),
        ("chart.txt", "expected a .yaml"),
        ("no_such_module:chart", "no module"),
        ("statewright.statecharts:nothing", "no attribute 'nothing'"),
        ("missing.py:chart", "no file"),
    ],
)
def test_a_chart_that_is_not_there_is_an_error_that_says_so(source: str, message: str) -> None:
    with pytest.raises(ChartNotFound, match=message):
        load_chart(source)


TREE = {
    "name": "x",
    "context": {"n": {"type": "int", "default": 1}},
    "initial": "a",
    "states": {
        "a": {"entry": [{"assign": {"n": "1 + 1"}}], "on": {"go": [{"target": "b", "guard": "context.n > 1"}]}},
        "b": {
            "type": "parallel",
            "states": {"c": {"after": {"1h": "a"}}, "d": {"states": {"h": {"history": "deep"}, "e": {}}}},
        },
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "b", "1h", "go"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "on", "type", "raise", "target"]) | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places_in(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, item in inner for place in places_in(item, (*path, key)))]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


@settings(max_examples=250)
@given(st.sampled_from(places_in(TREE)), JSON)
def test_whatever_stands_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    try:
        chart = Chart.from_tree(replaced(TREE, path, value))
    except ChartError:
        return
    assert Chart.from_json(chart.to_json()).digest == chart.digest


@settings(max_examples=200)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#?%@, \n\t\\", max_size=40), st.booleans())
def test_whatever_text_is_read_or_refused(text: str, is_json: bool) -> None:
    with contextlib.suppress(ChartError):
        read_document(text.encode(), is_json=is_json)
