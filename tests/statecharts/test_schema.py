"""The published JSON Schema: the types give it, it accepts what the reader accepts, and refuses broken shapes."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

from statewright.statecharts import Chart, ChartError
from statewright.statecharts import definition as d
from statewright.statecharts.documents import read_document
from statewright.statecharts.places import Faults, Places
from statewright.statecharts.reader import read_definition
from statewright.statecharts.schema import chart_schema, schema_json
from tests.statecharts.random_charts import charts

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = chart_schema()
VALIDATOR = Draft7Validator(SCHEMA)
SCHEMA_TYPES = {name: part["properties"] for name, part in SCHEMA["definitions"].items() if name[0].isupper()}

EVERYTHING = """
name: order
version: 2
description: Everything once
context:
  amount: int
  rate: {type: double, default: 2}
  lines: {type: 'list(map(string, dyn))', default: [], description: What was ordered}
  buyer: string?
subscribe:
  - {subject: orders.paid, event: paid, instance: data.order, id: data.id}
  - {subject: orders.>, eventexpr: data.kind, instance: data.order, data: data.body}
initial: open
meta: {owner: {team: [sales]}}
on: {abort error.*: {target: gone, actions: [{cancel: reminder}]}, '*': {}}
after: [{delay: 90d, target: gone}]
states:
  open:
    description: Being put together
    tags: [early]
    entry:
      - welcome
      - assign: {amount: context.amount + 1}
      - assign: {function: stamp}
      - send: {event: remind, delay: 1h, id: reminder}
      - type: send
        eventexpr: "'again'"
        delay: 500
      - if: {guard: context.amount > 10, then: [big], else: [{log: {expr: context.amount, label: small}}]}
      - type: if
        branches: [{guard: {function: solvent}, actions: big}, {guard: 'true'}]
        otherwise: [small]
      - foreach: {array: context.lines, item: lines, actions: []}
      - block: [first, {raise: second}]
    exit: [{raise: left}, {type: raise, event: gone, data: {function: stamp}}]
    invoke:
      - {id: audit, src: audit.yaml, data: {amount: context.amount}, autoforward: true, finalize: seen}
      - chart: {name: inner, states: {only: {type: final}}}
    on:
      pay:
        - {target: packing, guard: {function: solvent}, actions: [{assign: {function: stamp}}]}
        - {target: gone, guard: context.amount > 1000}
        - gone
      left: {}
    after:
      24h: {target: gone}
      500: gone
    always: {target: gone, guard: context.amount < 0}
  packing:
    type: parallel
    states:
      goods: {states: {picking: {on: {picked: packed}}, packed: {type: final}}}
      papers:
        initial: {target: typing, actions: [{call: {service: office, method: type}}, {call: office.print}]}
        states:
          typing: {always: {target: typed, guard: "In('packed')"}}
          typed: {type: final}
          back: {history: deep, target: typing, actions: noted}
    on:
      done.state.packing: {target: sent}
      again: {target: [picking, back]}
      note: {actions: [{perform: {name: note, data: event.data}}], internal: true, description: A remark}
      archive:
        actions:
          - perform:
              name: archive
              retry: {attempts: 3, initial: 500, maximum: PT1M, multiplier: 1.5, jitter: 1, final: [ValueError, "409"]}
              timeout: 90s
              heartbeat: 10000
              cancel: on_exit
          - {call: {service: office, method: file, retry: {final: Lost}, timeout: 1m, heartbeat: 5s, cancel: never}}
          - {emit: {subject: orders.archived, retry: {}, timeout: 500, cancel: on_exit}}
    transitions:
      - {event: x y, target: sent}
      - {events: [z], guard: 'true', actions: {emit: {subject: orders.late, data: {n: context.amount}}}}
      - {delay: 2h, target: gone}
  sent: {type: final, output: {amount: context.amount}}
  gone:
"""


def tree_of(text: str) -> Any:
    return read_document(text.encode())[0]


def functions_in(tree: Any) -> Iterator[str]:
    """The names that stand under a key `function` anywhere."""
    if isinstance(tree, dict):
        if isinstance(tree.get("function"), str) and tree["function"]:
            yield tree["function"]
        tree = list(tree.values())
    for item in tree if isinstance(tree, list) else ():
        yield from functions_in(item)


def loads(tree: Any) -> bool:
    """Whether a chart comes of it, the functions that it names provided."""
    try:
        Chart.from_tree(tree, {name: lambda context, event: True for name in functions_in(tree)})
    except ChartError:
        return False
    return True


def reader_faults(tree: Any) -> list[str]:
    """What the reader alone finds: faults of shape."""
    faults = Faults(Places())
    read_definition(tree, faults)
    return [str(fault) for fault in faults.sorted()]


def schema_faults(tree: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(tree)]


def written_charts() -> Iterator[tuple[str, Any]]:
    """Every text in the examples, the documents and the tests that could be a chart, as a tree, with its place."""
    for path in sorted([*ROOT.glob("examples/**/*"), *ROOT.glob("tests/**/*")]):
        place = str(path.relative_to(ROOT))
        if path.suffix in (".yaml", ".yml", ".json"):
            yield from trees([(place, path.read_text("utf-8"))])
        elif path.suffix == ".py":
            yield from trees(
                (f"{place}:{node.lineno}", node.value)
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "states" in node.value
            )
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]):
        blocks = re.findall(r"^```(?:yaml|json)\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M)
        yield from trees((f"{path.name}, block {index}", block) for index, block in enumerate(blocks))


def trees(texts: Any) -> Iterator[tuple[str, Any]]:
    for place, text in texts:
        try:
            tree = tree_of(text)
        except ChartError:
            continue
        if isinstance(tree, dict) and "states" in tree:
            yield place, {"name": "test"} | tree  # as `behaviour.read` does it


def test_the_published_schema_is_the_generated_one() -> None:
    """When the types change: `python -m statewright.statecharts.schema > statecharts/chart.schema.json`."""
    published = resources.files("statewright.statecharts").joinpath("chart.schema.json").read_text("utf-8")
    assert published == schema_json()


def test_the_schema_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)
    names = set(re.findall(r'"#/definitions/(\w+)"', schema_json()))
    assert names == set(SCHEMA["definitions"]), "every definition is used, and every reference leads somewhere"


def test_every_field_of_every_type_is_in_the_schema_and_described() -> None:
    types = [t for t in vars(d).values() if isinstance(t, type) and issubclass(t, d.Node)]
    kinds = {t.__name__: t for t in types if t not in (d.Node, d.Action)}
    missing = [
        f"{name}.{field.name}"
        for name, kind in kinds.items()
        for field in msgspec.structs.fields(kind)
        if not SCHEMA["definitions"][name]["properties"].get(field.name, {}).get("description")
    ]
    assert missing == []


def in_chart(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """A chart that has `part`, written as the type `name`, in its place."""
    state: dict[str, Any] = {}
    chart: dict[str, Any] = {"name": "x", "states": {"a": state}}
    match name:
        case "Definition":
            chart |= part
        case "State":
            state |= part
        case "Declaration":
            chart["context"] = [part]
        case "Subscription":
            chart["subscribe"] = [part]
        case "Transition":
            state["transitions"] = [part]
        case "FunctionRef":
            state["transitions"] = [{"guard": part}]
        case "Branch":
            state["entry"] = {"type": "if", "branches": [{"guard": "true"} | part]}
        case "Retry":
            state["entry"] = {"perform": {"name": "pay", "retry": part}}
        case "Initial" | "Invoke":
            state[name.lower()] = part
        case _:
            state["entry"] = {"type": getattr(d, name).__struct_config__.tag} | part
    return chart


@pytest.mark.parametrize("name", sorted(SCHEMA_TYPES))
def test_the_reader_knows_every_key_that_the_schema_allows(name: str) -> None:
    for key in SCHEMA_TYPES[name]:
        faults = reader_faults(in_chart(name, {key: None}))
        assert [fault for fault in faults if f"has no {key!r}" in fault] == []
    if name != "FunctionRef":  # a guard is a function's reference or nothing
        assert any("has no 'zz'" in fault for fault in reader_faults(in_chart(name, {"zz": None})))


def test_every_written_chart_that_loads_is_valid() -> None:
    found = [(place, tree) for place, tree in written_charts() if loads(tree)]
    assert len(found) > 60
    assert "examples/document_approval/chart.yaml" in dict(found)
    wrong = {place: faults for place, tree in found if (faults := schema_faults(tree))}
    assert wrong == {}


def test_the_short_forms_and_their_canonical_form_are_valid() -> None:
    tree = tree_of(EVERYTHING)
    assert reader_faults(tree) == []
    assert schema_faults(tree) == []
    faults = Faults(Places())
    definition, _ = read_definition(tree, faults)
    assert definition is not None
    assert schema_faults(json.loads(d.to_json(definition))) == []


@given(charts())
@settings(max_examples=50)
def test_random_charts_are_valid_as_written_and_as_stored(tree: Any) -> None:
    assert schema_faults(tree) == []
    assert schema_faults(json.loads(Chart.from_tree(tree).to_json())) == []


BROKEN = {
    "no mapping": "[]",
    "no name": "states: {a: }",
    "no states": "name: x",
    "empty states": "{name: x, states: {}}",
    "states null": "{name: x, states: }",
    "states a text": "{name: x, states: a}",
    "bad name": "{name: my chart, states: {a: }}",
    "unknown key": "{name: x, state: {a: }, states: {a: }}",
    "version a float": "{name: x, version: 1.5, states: {a: }}",
    "expressions": "{name: x, expressions: lax, states: {a: }}",
    "context a list of texts": "{name: x, context: [a], states: {a: }}",
    "context null field": "{name: x, context: {f: }, states: {a: }}",
    "field name": "{name: x, context: {my-field: int}, states: {a: }}",
    "field name reserved": "{name: x, context: {function: int}, states: {a: }}",
    "field type": "{name: x, context: {f: integer}, states: {a: }}",
    "field key": "{name: x, context: {f: {kind: int}}, states: {a: }}",
    "field of a list without a name": "{name: x, context: [{type: int}], states: {a: }}",
    "field of a list with a number for a name": "{name: x, context: [{name: 5}], states: {a: }}",
    "subscription without instance": "{name: x, subscribe: {subject: s, event: e}, states: {a: }}",
    "subscription with both": "{name: x, subscribe: {subject: s, event: e, eventexpr: d, instance: i}, states: {a: }}",
    "child chart without states": "{name: x, states: {a: {invoke: {chart: {name: y}}}}}",
}
BROKEN_STATES = {
    "state a text": "b",
    "state a list": "[]",
    "unknown key": "{enter: go}",
    "type": "{type: orthogonal}",
    "history": "{history: full}",
    "history null": "{history: }",
    "history of another type": "{type: final, history: deep}",
    "target of a state": "{target: a}",
    "description null": "{description: }",
    "tags": "{tags: [1]}",
    "meta": "{meta: [1]}",
    "initial a number": "{initial: 1}",
    "initial unknown key": "{initial: {to: a}}",
    "on null": "{on: }",
    "on a list": "{on: [go]}",
    "on with an odd event": "{on: {a..b: a}}",
    "on null transition": "{on: {go: }}",
    "on number": "{on: {go: 1}}",
    "transition unknown key": "{on: {go: {gaurd: 'true'}}}",
    "transition target number": "{on: {go: {target: 1}}}",
    "transition guard null": "{on: {go: {guard: }}}",
    "transition guard bool": "{on: {go: {guard: true}}}",
    "transition guard mapping": "{on: {go: {guard: {name: f}}}}",
    "transition internal": "{on: {go: {internal: maybe}}}",
    "after null": "{after: }",
    "after list": "{after: [5]}",
    "after list without delay": "{after: [{target: a}]}",
    "always null": "{always: }",
    "transitions text": "{transitions: go}",
    "transitions both names": "{transitions: [{event: a, events: [b]}]}",
    "transitions event and delay": "{transitions: [{event: a, delay: 1s}]}",
    "transitions null delay": "{transitions: [{event: a, delay: }]}",
    "entry a number": "{entry: 1}",
    "entry an empty text": "{entry: ['']}",
    "entry null inside": "{entry: [null]}",
    "action unknown": "{entry: {rase: e}}",
    "action of two keys": "{entry: {raise: e, log: f}}",
    "action empty": "{entry: {}}",
    "typed action unknown": "{entry: {type: rase}}",
    "typed action number": "{entry: {type: 5}}",
    "raise null": "{entry: {raise: }}",
    "raise empty": "{entry: {raise: ''}}",
    "raise with a delay": "{entry: {raise: {event: e, delay: 1s}}}",
    "send without event": "{entry: {send: {delay: 1s}}}",
    "send with both": "{entry: {send: {event: e, eventexpr: f}}}",
    "send negative delay": "{entry: {send: {event: e, delay: -1}}}",
    "send id number": "{entry: {send: {event: e, id: 1}}}",
    "cancel empty": "{entry: {cancel: {}}}",
    "call without a service": "{entry: {call: pay}}",
    "call without a method": "{entry: {call: {service: s}}}",
    "perform null": "{entry: {perform: }}",
    "retry null": "{entry: {perform: {name: n, retry: }}}",
    "retry a number": "{entry: {perform: {name: n, retry: 3}}}",
    "retry unknown key": "{entry: {perform: {name: n, retry: {tries: 3}}}}",
    "retry no attempts": "{entry: {perform: {name: n, retry: {attempts: 0}}}}",
    "retry half an attempt": "{entry: {perform: {name: n, retry: {attempts: 1.5}}}}",
    "retry attempts true": "{entry: {perform: {name: n, retry: {attempts: true}}}}",
    "retry shrinking": "{entry: {perform: {name: n, retry: {multiplier: 0.5}}}}",
    "retry jitter over one": "{entry: {perform: {name: n, retry: {jitter: 1.1}}}}",
    "retry jitter a text": "{entry: {perform: {name: n, retry: {jitter: much}}}}",
    "retry final a number": "{entry: {perform: {name: n, retry: {final: [409]}}}}",
    "retry initial negative": "{entry: {perform: {name: n, retry: {initial: -1}}}}",
    "timeout null": "{entry: {perform: {name: n, timeout: }}}",
    "timeout empty": "{entry: {call: {service: s, method: m, timeout: ''}}}",
    "heartbeat of an emit": "{entry: {emit: {subject: s, heartbeat: 1s}}}",
    "cancel a bool": "{entry: {perform: {name: n, cancel: true}}}",
    "cancel another word": "{entry: {perform: {name: n, cancel: on_entry}}}",
    "assign empty": "{entry: {assign: {}}}",
    "assign a text": "{entry: {assign: x}}",
    "assign a number for a function": "{entry: {assign: {function: 5}}}",
    "typed assign of nothing": "{entry: {type: assign}}",
    "if without guard": "{entry: {if: {then: a}}}",
    "if unknown key": "{entry: {if: {guard: 'true', do: a}}}",
    "typed if without branches": "{entry: {type: if}}",
    "typed if of no branch": "{entry: {type: if, branches: []}}",
    "foreach without item": "{entry: {foreach: {array: a}}}",
    "foreach a text": "{entry: {foreach: a}}",
    "block of a mapping": "{entry: {block: {raise: e}}}",
    "log a number": "{entry: {log: 5}}",
    "script empty": "{entry: {script: ''}}",
    "invoke a text": "{invoke: child.yaml}",
    "invoke nothing": "{invoke: {}}",
    "invoke both": "{invoke: {src: a.yaml, srcexpr: b}}",
    "invoke chart and src": "{invoke: {chart: {name: y, states: {a: }}, src: a.yaml}}",
    "invoke data": "{invoke: {src: a.yaml, data: [1]}}",
    "invoke autoforward": "{invoke: {src: a.yaml, autoforward: 'yes'}}",
    "output function": "{type: final, output: {function: 5}}",
    "list of states without an id": "{states: [{type: final}]}",
    "list of states with a null": "{states: [null]}",
    "state id": "{states: {'a b': }}",
    "deep unknown key": "{states: {b: {states: {c: {onn: {}}}}}}",
}


@pytest.mark.parametrize(
    "tree",
    [pytest.param(tree_of(text), id=name) for name, text in BROKEN.items()]
    + [
        pytest.param({"name": "x", "states": {"a": tree_of(text)}}, id=f"state: {name}")
        for name, text in BROKEN_STATES.items()
    ],
)
def test_broken_shapes_are_refused_by_schema_and_reader(tree: Any) -> None:
    assert not loads(tree), "expected the reader to refuse it"
    assert schema_faults(tree), "expected the schema to refuse it"


NOISE = st.sampled_from(
    [None, True, 7, -1, 1.5, "zz", "", " ", [], {}, [None], [5], ["zz"], {"zz": None}, {"zz": "zz"}, {"type": "zz"}]
)
BEYOND_A_SCHEMA = ("expected no id, or the key", "expected no name, or the key", "are declared twice", "expected ')'")
"""Faults of shape that compare two places, or are inside the text of a type."""


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(item, (*path, key))


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The chart with everything in it, damaged in one or two places."""
    tree = tree_of(EVERYTHING)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([path for path in places(tree) if path]))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "remove", "add", "rename"])):
            case "replace":
                parent[path[-1]] = copy.deepcopy(draw(NOISE))
            case "remove":
                del parent[path[-1]]
            case "add" if isinstance(parent, dict):
                key = draw(
                    st.sampled_from([*SCHEMA["definitions"]["State"]["properties"], "event", "delay", "zz", "if"])
                )
                parent[key] = copy.deepcopy(draw(NOISE))
            case "rename" if isinstance(parent, dict):
                parent["zz"] = parent.pop(path[-1])
    return tree


@given(damaged())
@settings(max_examples=150)
def test_schema_and_reader_agree_on_damaged_charts(tree: Any) -> None:
    by_reader, by_schema = reader_faults(tree), schema_faults(tree)
    if by_schema:
        assert by_reader or not loads(tree), f"expected the schema to accept what the reader accepts: {by_schema}"
    elif by_reader:
        missed = [fault for fault in by_reader if not any(text in fault for text in BEYOND_A_SCHEMA)]
        assert missed == [], "expected the schema to refuse what the reader refuses"


def test_an_editor_is_told_where_and_what() -> None:
    tree = tree_of("{name: x, states: {a: {on: {go: {target: a, gaurd: 'true'}}}}}")
    error = best_match(VALIDATOR.iter_errors(tree))
    assert error.json_path == "$.states.a.on.go"
    assert "'gaurd' was unexpected" in error.message


def test_what_compares_two_places_is_left_to_the_reader() -> None:
    tree = tree_of("{name: x, context: {f: {name: g}}, states: {a: {id: b}}}")
    assert schema_faults(tree) == []
    assert [fault.partition(",")[0] for fault in reader_faults(tree)] == [
        "context.f.name: expected no name",
        "states.a.id: expected no id",
    ]


def test_a_chart_may_say_where_its_schema_is() -> None:
    with_schema, without = (
        tree_of("{$schema: chart.schema.json, name: x, states: {a: }}"),
        tree_of("{name: x, states: {a: }}"),
    )
    assert schema_faults(with_schema) == reader_faults(with_schema) == []
    assert Chart.from_tree(with_schema).digest == Chart.from_tree(without).digest
