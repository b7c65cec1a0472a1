"""The JSON Schema of the written form of a workflow, generated from the model's types.

As with charts: what the reader accepts the schema accepts, faults of shape are refused by both, and what a workflow
means is beyond a schema. `workflow.schema.json` beside this module is what `python -m
statewright.statecharts.workflows.schema` prints, in draft 7 of JSON Schema.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from statewright.statecharts.schema import DIALECT
from statewright.statecharts.workflows import model
from statewright.statecharts.workflows.reader import RESERVED
from statewright.statecharts.workflows.schema_texts import FIELDS

Schema = dict[str, Any]

ID = "urn:statewright:schema:workflow:1"
_NAME = r"^[A-Za-z0-9_-]{1,128}$"
_DURATIONS = ("timeout", "retry_delay", "retry_delay_max", "deadline")
_NEEDED = {
    "WorkflowDefinition": ["id", "steps"],
    "Branch": ["step", "condition"],
    "ParallelGroup": ["name", "steps"],
}


def workflow_schema() -> Schema:
    """The JSON Schema (draft 7) of a workflow's YAML or JSON form. Raises LookupError if a field has no description."""
    types = (model.WorkflowDefinition,)
    _, components = msgspec.json.schema_components(types, ref_template="#/definitions/{name}")
    if unknown := set(FIELDS) ^ set(components):
        raise LookupError(f"expected descriptions of exactly the workflow's types, differing: {sorted(unknown)}")
    definitions = {name: _component(name, component) for name, component in components.items()}
    _rules(definitions)
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "Statewright workflow",
        "allOf": [_ref("WorkflowDefinition")],
        "definitions": definitions | _shapes(),
    }


def schema_json() -> str:
    """The schema as the text of `workflow.schema.json`."""
    return json.dumps(workflow_schema(), indent=2, ensure_ascii=False) + "\n"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _component(name: str, component: Schema) -> Schema:
    texts, properties = FIELDS[name], component["properties"]
    if unknown := set(texts) ^ set(properties):
        raise LookupError(f"expected descriptions of exactly the fields of {name}, differing: {sorted(unknown)}")
    return {
        "description": inspect.cleandoc(component["description"]),
        "type": "object",
        "properties": {key: {"description": texts[key]} | _field(key, shape) for key, shape in properties.items()},
        "required": _NEEDED.get(name, []),
        "additionalProperties": False,
    }


def _field(key: str, shape: Schema) -> Schema:
    default = {"default": shape["default"]} if shape.get("default") not in (None, "", [], {}) else {}
    default = default if not isinstance(default.get("default"), dict) else {}
    if key in _DURATIONS:
        return {"allOf": [_ref("duration")]} | default
    if key in ("on_error", "rollback", "steps", "branches", "groups", "dependencies", "then", "otherwise"):
        return {}  # written in more ways than one: see `_rules`
    if key in ("parameters", "metadata"):
        return {"type": ["object", "null"]}
    if key == "function":
        return {"type": "string"}
    plain = {word: value for word, value in shape.items() if word != "default"}
    if "anyOf" in plain:  # a number that may be left out
        number = next(option for option in plain.pop("anyOf") if option.get("type") != "null")
        plain |= number | {"type": [number["type"], "null"]}
    elif plain.get("type") in ("integer", "number"):
        plain["type"] = [plain["type"], "null"]
    return plain | default


def _rules(types: dict[str, Schema]) -> None:
    workflow = types["WorkflowDefinition"]["properties"]
    workflow["$schema"] = {"type": "string", "description": "Where this schema is; for editors."}
    workflow["id"] |= {"type": "string", "pattern": _NAME}
    workflow["version"] |= {"type": ["string", "integer"], "minLength": 1, "maxLength": 128}
    workflow["steps"] |= {
        "type": ["object", "array"],
        "minProperties": 1,
        "minItems": 1,
        "propertyNames": _ref("stepId"),
        "additionalProperties": _ref("WorkflowStep"),
        "items": {"allOf": [_ref("WorkflowStep")], "required": ["id"]},
    }
    for key, kind in (("branches", "Branch"), ("groups", "ParallelGroup")):
        workflow[key] |= {"anyOf": [{"type": "null"}, _ref(kind), {"type": "array", "items": _ref(kind)}]}
    step = types["WorkflowStep"]
    step["properties"]["id"] |= _ref_beside("stepId")
    step["properties"]["dependencies"] |= _ref_beside("names")
    step["properties"]["on_error"] |= _ref_beside("onError")
    step["properties"]["rollback"] |= {"anyOf": [{"type": "null"}, _ref("WorkflowStep")]}
    step["oneOf"] = [
        {"required": ["function"], "properties": {"function": {"minLength": 1}}},
        *(
            {"required": [key, "method"], "properties": {key: {"minLength": 1}, "method": {"minLength": 1}}}
            for key in ("plugin", "service")
        ),
    ]
    for key in ("then", "otherwise"):
        types["Branch"]["properties"][key] |= _ref_beside("names")
    for key in ("step", "condition"):
        types["Branch"]["properties"][key] |= {"minLength": 1}
    group = types["ParallelGroup"]["properties"]
    group["name"] |= _ref_beside("stepId")
    group["steps"] |= _ref_beside("names")
    group["merge"]["type"] = ["string", "null"]


def _ref_beside(name: str) -> Schema:
    """A reference that may stand beside a description (in draft 7 whatever is beside `$ref` is void)."""
    return {"allOf": [_ref(name)]}


def _shapes() -> Schema:
    return {
        "stepId": {
            "type": "string",
            "pattern": r"^[A-Za-z_][A-Za-z0-9_-]{0,127}$",
            "not": {"enum": sorted(RESERVED)},
        },
        "names": {"type": ["string", "array", "null"], "items": {"type": "string"}},
        "duration": {"type": ["string", "integer", "null"], "minimum": 0},
        "onError": {
            "type": ["string", "object", "null"],
            "if": {"type": "string"},
            "then": {"enum": ["abort", "retry", "skip", "continue"]},
            "else": {"anyOf": [{"type": "null"}, _ref("OnError")]},
        },
    }


if __name__ == "__main__":
    print(schema_json(), end="")
