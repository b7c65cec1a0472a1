"""The JSON Schema of the written form of a chart, generated from the definition's types.

msgspec gives the schema of the canonical form. What the reader accepts beyond it (`on`, `after` and `always`, states
as a mapping, a target alone for a transition, one-key actions) is put in where the types' shapes call for it, so that
a new field needs no change here but its sentence in `schema_texts`.

Invariant: what the reader accepts, the schema accepts; faults of shape are refused by both. What a chart means
(targets, types, expressions) is beyond a schema, and `check`'s business.

`chart.schema.json` beside this module is what `python -m statewright.statecharts.schema` prints. It is in draft 7 of
JSON Schema, the one that YAML editors understand.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from statewright.statecharts import definition as d
from statewright.statecharts.actions_reader import KINDS, ONE_OF, SHORT_FIELDS
from statewright.statecharts.reader import CEL_WORDS, ID_CHARS_MAX
from statewright.statecharts.schema_texts import FIELDS, SHORT

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
ID = "urn:statewright:schema:chart:1"

# The patterns keep to what Python's and ECMAScript's expressions both have; `\w` differs beyond ASCII, so ids are
# described by the ASCII characters that they must not contain.
_NAME = r"^[A-Za-z0-9_-]{1,128}$"
_STATE_ID = r"^[^\s\x00-,/;-@\[-^`{-\x7f]+$"
_FIELD = r"^[A-Za-z_][A-Za-z0-9_]*$"
_EVENT = r"(\*|[^\s.*]+(\.[^\s.*]+)*(\.\*?)?)"
_EVENTS = rf"^\s*{_EVENT}(\s+{_EVENT})*\s*$"
_TYPE = r"^\s*(int|double|string|bool|dyn|list\s*\([\s\S]+\)|map\s*\(\s*string\s*,[\s\S]+\))\s*(\?\s*)?$"
_DELAYS = ("delay", "timeout", "heartbeat", "initial", "maximum")
_CALL = r"^[\s\S]+\.[^.]+$"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def chart_schema() -> Schema:
    """The JSON Schema (draft 7) of a chart's YAML or JSON form. Raises LookupError if a field has no description."""
    _, components = msgspec.json.schema_components((d.Definition,), ref_template="#/definitions/{name}")
    if unknown := set(FIELDS) ^ set(components):
        raise LookupError(f"expected descriptions of exactly the definition's types, differing: {sorted(unknown)}")
    types = {name: _component(name, component) for name, component in components.items()}
    _chart(types["Definition"])
    _state(types["State"])
    _rules(types)
    short = _transition(types["Transition"])
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "Statewright chart",
        "allOf": [_ref("Definition")],
        "definitions": types | _shapes(short) | _actions(types),
    }


def schema_json() -> str:
    """The schema as the text of `chart.schema.json`."""
    return json.dumps(chart_schema(), indent=2, ensure_ascii=False) + "\n"


def _component(name: str, component: Schema) -> Schema:
    """A type as it is written: msgspec's schema of it with its fields in their written shapes and described."""
    texts = FIELDS[name]
    properties = dict(component["properties"])
    tag = {"type": properties.pop("type")} if issubclass(getattr(d, name), d.Action) else {}
    if unknown := set(texts) ^ set(properties):
        raise LookupError(f"expected descriptions of exactly the fields of {name}, differing: {sorted(unknown)}")
    required = component["required"]
    written = {
        key: {"description": texts[key]} | _field(key, shape, required=key in required)
        for key, shape in properties.items()
    }
    return {
        "description": inspect.cleandoc(component["description"]),
        "type": "object",
        "properties": tag | written,
        "required": required,
        "additionalProperties": False,
    }


def _field(key: str, shape: Schema, *, required: bool) -> Schema:
    """The written shape of a field, told by its canonical one."""
    default = {"default": shape["default"]} if shape.get("default") not in ("", None, [], {}) else {}
    shape = {word: value for word, value in shape.items() if word != "default"}
    if key in ("meta", "default"):
        return shape  # kept as it is, never evaluated
    if not shape:
        return _all(_ref("value"))
    if shape == {"type": "object"}:
        return {"type": "object", "additionalProperties": _ref("value")}
    if shape == {"type": "string"}:
        text = _all(_ref("delay")) if key in _DELAYS else shape | ({"minLength": 1} if required else {})
        return text | default
    if "anyOf" in shape:
        return _all(_ref(_optional(shape["anyOf"])))
    if shape.get("type") == "array":
        return _array(shape["items"])
    return shape | default


def _all(reference: Schema) -> Schema:
    """A reference that may stand beside a description (in draft 7 whatever is beside `$ref` is void)."""
    return {"allOf": [reference]}


def _optional(options: list[Schema]) -> str:
    """The written shape of something that may be left out, or of a guard."""
    names: list[str] = [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]
    return {"FunctionRef": "guard", "Initial": "initial"}.get(names[0], names[0])


def _array(items: Schema) -> Schema:
    if items == {"type": "string"}:
        return _all(_ref("texts"))
    if "discriminator" in items:
        return _all(_ref("actions"))
    name = items["$ref"].rpartition("/")[2]
    mapped = {"State": "states", "Declaration": "context"}.get(name)
    return _all(_ref(mapped)) if mapped else _some(items)


def _some(item: Schema) -> Schema:
    """None, one or several of `item`."""
    return {"anyOf": [{"type": "null"}, item, {"type": "array", "items": item}]}


def _chart(chart: Schema) -> None:
    properties = chart["properties"]
    properties["$schema"] = {
        "type": "string",
        "description": "Where this schema is; for editors, and no part of the chart.",
    }
    properties["name"] |= {"pattern": _NAME}
    properties["version"] |= {"type": ["string", "integer"], "minLength": 1, "maxLength": 128}
    properties["states"] |= {"type": ["object", "array"], "minProperties": 1, "minItems": 1}
    chart["required"] = ["name", "states"]
    _short_forms(properties)


def _state(state: Schema) -> None:
    properties = state["properties"]
    properties["id"] = {"description": properties["id"]["description"]} | _all(_ref("stateId"))
    properties["history"].pop("default")  # it is that of the type history; a plain state has none
    properties["type"] = {"description": FIELDS["State"]["type"], "enum": [*properties["type"]["enum"], None]}
    for key, shape in (("target", "texts"), ("actions", "actions")):
        properties[key] = {"description": SHORT[key]} | _all(_ref(shape))
    _short_forms(properties)
    is_history = {"required": ["type"], "properties": {"type": {"const": "history"}}}
    state |= {
        "type": ["object", "null"],
        "required": [],
        "allOf": [
            {"if": {"required": ["history"]}, "then": {"properties": {"type": {"enum": ["history", None]}}}},
            {
                "if": {"anyOf": [{"required": ["history"]}, is_history]},
                "else": {"properties": {"target": False, "actions": False}},
            },
        ],
    }


def _short_forms(properties: Schema) -> None:
    for key, shape in (("on", "on"), ("after", "after"), ("always", "transition")):
        properties[key] = {"description": SHORT[key]} | _all(_ref(shape))


def _transition(transition: Schema) -> Schema:
    """Adapts the full form of a transition; the properties of its short form."""
    properties = transition["properties"]
    short = {key: shape for key, shape in properties.items() if key not in ("events", "delay")}
    properties["events"] = {"description": FIELDS["Transition"]["events"]} | _all(_ref("events"))
    properties["event"] = {"description": SHORT["event"]} | _all(_ref("events"))
    some = {"anyOf": [{"type": "string", "pattern": r"\S"}, {"type": "array", "minItems": 1}]}
    transition["allOf"] = [
        {"not": {"required": ["event", "events"]}},
        *({"not": {"required": ["delay", key], "properties": {key: some}}} for key in ("event", "events")),
    ]
    return short


def _rules(types: dict[str, Schema]) -> None:
    """What the reader demands beyond the types: one of several fields, or at least one of a list."""
    for kind, keys in ONE_OF.items():
        if len(keys) > 1:
            types[KINDS[kind].__name__] |= _one_of(*keys)
    types["Subscription"] |= _one_of("event", "eventexpr")
    types["Invoke"] |= {
        "oneOf": [{"required": ["chart"]}, *_one_of("src", "srcexpr", "contentexpr")["oneOf"]],
    }
    types["Assign"]["anyOf"] = [
        {"required": ["values"], "properties": {"values": {"minProperties": 1}}},
        _given("function"),
    ]
    branches = {"anyOf": [_ref("Branch"), {"type": "array", "minItems": 1, "items": _ref("Branch")}]}
    types["If"]["properties"]["branches"] |= branches
    declaration = types["Declaration"]
    declaration["properties"]["name"] = {"description": FIELDS["Declaration"]["name"]} | _all(_ref("fieldName"))
    declaration["properties"]["type"] |= {"pattern": _TYPE}
    declaration |= {"type": ["object", "string"], "pattern": _TYPE, "required": []}


def _one_of(*keys: str) -> Schema:
    return {"oneOf": [_given(key) for key in keys]}


def _given(key: str) -> Schema:
    """The field is there and not empty."""
    return {"required": [key], "properties": {key: {"minLength": 1}}}


def _shapes(short: Schema) -> Schema:
    """The shapes that are written in more ways than one."""
    texts = {"type": ["string", "array", "null"], "items": {"type": "string"}}
    events = {
        "type": ["string", "array", "null"],
        "pattern": rf"^\s*$|{_EVENTS}",
        "items": {"type": "string", "pattern": _EVENTS},
    }
    transition = {"properties": short, "additionalProperties": False}
    delayed = short | {"delay": {"description": FIELDS["Transition"]["delay"]} | _all(_ref("delay"))}
    return {
        "stateId": {"type": "string", "pattern": _STATE_ID, "maxLength": ID_CHARS_MAX},
        "fieldName": {"type": "string", "pattern": _FIELD, "not": {"enum": sorted(CEL_WORDS)}},
        "states": {
            "description": "A mapping of ids to states, or a list of states with their ids.",
            "type": ["object", "array", "null"],
            "propertyNames": _ref("stateId"),
            "additionalProperties": _ref("State"),
            "items": {"type": "object", "allOf": [_ref("State")], "required": ["id"]},
        },
        "context": {
            "description": "A mapping of names to types or declarations, or a list of declarations with their names.",
            "type": ["object", "array", "null"],
            "propertyNames": _ref("fieldName"),
            "additionalProperties": _ref("Declaration"),
            "items": {"type": "object", "allOf": [_ref("Declaration")], "required": ["name"]},
        },
        "initial": {
            "description": f"{FIELDS['Initial']['target']} A mapping has actions, too.",
            "type": ["string", "array", "object", "null"],
            "items": {"type": "string"},
            "minItems": 1,
            "if": {"type": "object"},
            "then": _ref("Initial"),
        },
        "transition": {
            "description": "A target, a transition, or a list of transitions that are tried in order.",
            "type": ["string", "object", "array"],
            **transition,
            "items": _ref("transition"),
        },
        "on": {"type": "object", "propertyNames": {"pattern": _EVENTS}, "additionalProperties": _ref("transition")},
        "after": {
            "type": ["object", "array"],
            "propertyNames": {"pattern": r"\S"},
            "additionalProperties": _ref("transition"),
            "items": {
                "type": "object",
                "properties": delayed,
                "required": ["delay"],
                "additionalProperties": False,
            },
        },
        "events": events,
        "texts": texts,
        "delay": {"type": ["string", "integer"], "minimum": 0, "pattern": r"\S"},
        "guard": {"type": ["string", "object"], "if": {"type": "object"}, "then": _ref("FunctionRef")},
        "value": {
            "description": "A value to evaluate: a text is a CEL expression, a mapping or list is evaluated element "
            "by element, {function: name} calls a function, anything else is itself.",
            "if": {"type": "object", "required": ["function"], "maxProperties": 1},
            "then": _ref("FunctionRef"),
            "else": {"additionalProperties": _ref("value"), "items": _ref("value")},
        },
    }


def _actions(types: dict[str, Schema]) -> Schema:
    """The ways to write actions: a handler's name, one key, or the kind as `type`."""
    typed = [
        {"if": {"properties": {"type": {"const": kind}}}, "then": _ref(struct.__name__)}
        for kind, struct in KINDS.items()
    ]
    return {
        "actions": _some(_ref("action")),
        "action": {
            "description": "A mapping with one key, the kind of action, or a text, the name of a handler.",
            "type": ["string", "object"],
            "minLength": 1,
            "if": {"type": "object", "required": ["type"]},
            "then": {"properties": {"type": {"enum": list(KINDS)}}, "allOf": typed},
            "else": {
                "properties": {kind: _one_key(kind, types) for kind in KINDS},
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
            },
        },
    }


def _one_key(kind: str, types: dict[str, Schema]) -> Schema:
    """What follows the key in the one-key form of an action."""
    full = types[KINDS[kind].__name__]
    fields = {key: shape for key, shape in full["properties"].items() if key != "type"}
    head = {"description": full["description"]}
    if kind == "assign":
        return head | {"type": "object", "minProperties": 1} | _all(_ref("value"))
    if kind == "if":
        guard = {"description": FIELDS["Branch"]["guard"]} | _all(_ref("guard"))
        arms = {key: {"description": SHORT[key]} | _all(_ref("actions")) for key in ("then", "else")}
        properties = {"guard": guard} | arms
        return head | {
            "type": "object",
            "properties": properties,
            "required": ["guard"],
            "additionalProperties": False,
        }
    rules: Schema = {word: full[word] for word in ("oneOf", "anyOf") if word in full}
    fields_alone: Schema = {
        "type": "object",
        "properties": fields,
        "required": [key for key in full["required"] if key != "type"],
        "additionalProperties": False,
        **rules,
    }
    if kind == "block":
        items = {"type": ["null", "string", "array"], "minLength": 1, "items": _ref("action")}
        return head | {"if": {"type": "object"}, "then": fields_alone, "else": items}
    if kind not in SHORT_FIELDS:
        return head | fields_alone
    text = {"call": {"pattern": _CALL}, "log": {}}.get(kind, {"minLength": 1})
    return head | {"if": {"type": "string"}, "then": text, "else": fields_alone}


if __name__ == "__main__":
    print(schema_json(), end="")
