"""Values between SCXML and the definition model: literals as values that evaluate to themselves, inline content."""

from __future__ import annotations

import json
from typing import Any

from statewright.statecharts.context import require_json
from statewright.statecharts.definition import Json
from statewright.statecharts.scxml.elements import Element, serialize, words


def literal(value: Json) -> Json:
    """The value (in the model's sense, where a text is an expression) that evaluates to `value`."""
    if isinstance(value, str):
        return cel_text(value)
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, dict):
        return cel_text(value) if set(value) == {"function"} else {key: literal(item) for key, item in value.items()}
    return value


def cel_text(value: Json) -> str:
    """The CEL expression of a JSON value: JSON is CEL, but for what only JSON escapes."""
    return json.dumps(value, ensure_ascii=False)


def cel_tree(tree: Json) -> str:
    """One expression that gives what the value evaluates to."""
    if isinstance(tree, str):
        return tree
    if isinstance(tree, list):
        return "[" + ", ".join(map(cel_tree, tree)) + "]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{cel_text(key)}: {cel_tree(item)}" for key, item in tree.items()) + "}"
    return cel_text(tree)


def holds_text(tree: Json) -> bool:
    """Whether there is an expression anywhere in the value."""
    if isinstance(tree, dict | list):
        return any(holds_text(item) for item in (tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, str)


def mapping(entries: dict[str, str]) -> Json:
    """The value that evaluates each of these expressions."""
    if set(entries) == {"function"}:  # would name a Python function
        return f'{{"function": ({entries["function"]})}}'
    return dict(entries)


def inline(element: Element) -> Json:
    """What stands in an element: XML as its text, JSON as its value, anything else as words (SCXML 5.2.3, 5.6)."""
    if element.elements:
        return "".join(serialize(part) if isinstance(part, Element) else part for part in element.parts).strip()
    return parse_inline(element.text)


def parse_inline(text: str) -> Json:
    """JSON as its value, anything else as words."""
    try:
        return require_json(json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        return words(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
