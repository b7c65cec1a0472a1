"""Locations: places in the context that dynamic charts assign to (SCXML 5.4), such as `order.lines[0].amount`.

The first name is a field; `.name` and `[expression]` lead on into maps and lists. Assigning copies what is on the
way, so that a context once given out never changes.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from statewright.statecharts.context import json_type
from statewright.statecharts.definition import Json

_HEAD = re.compile(r"\s*([A-Za-z_]\w*)\s*")
_DOTTED = re.compile(r"\.\s*([A-Za-z_]\w*)\s*")


class Location(NamedTuple):
    """A field and the way into it: names as they are, keys and indexes as expressions in brackets."""

    field: str
    steps: tuple[tuple[str, bool], ...]
    """(a name or an expression's text, whether it is an expression)."""


def parse_location(text: str) -> Location | None:
    """The location, or None if `text` is none."""
    head = _HEAD.match(text)
    if head is None:
        return None
    steps: list[tuple[str, bool]] = []
    position = head.end()
    while position < len(text):
        dotted = _DOTTED.match(text, position)
        if dotted:
            steps.append((dotted[1], False))
            position = dotted.end()
            continue
        end = _closing(text, position) if text[position] == "[" else None
        if end is None:
            return None
        steps.append((text[position + 1 : end].strip(), True))
        position = end + 1
        while position < len(text) and text[position].isspace():
            position += 1
    return Location(head[1], tuple(steps))


def placed(root: Json, keys: list[Any], value: Json) -> Json:
    """`root` with `value` at `keys`. Raises ValueError if there is no such place; a map takes new keys."""
    if not keys:
        return value
    key = keys[0]
    if isinstance(root, dict) and isinstance(key, str):
        if len(keys) > 1 and key not in root:
            raise ValueError(f"expected the key {key!r}, the map has {', '.join(root) or 'none'}")
        return {**root, key: placed(root.get(key), keys[1:], value)}
    if isinstance(root, list) and isinstance(key, int) and not isinstance(key, bool):
        if not 0 <= key < len(root):
            raise ValueError(f"expected an index below {len(root)}, got {key}")
        return [*root[:key], placed(root[key], keys[1:], value), *root[key + 1 :]]
    raise ValueError(f"expected a map with string keys or a list, got {json_type(root)} for the key {key!r}")


def split_script(source: str) -> list[str]:
    """The statements of a script: parted by `;` or lines' ends, outside of brackets and strings; `//` begins a
    comment.
    """
    statements: list[str] = []
    start = position = depth = 0
    source = f"{source}\n"
    while position < len(source):
        character = source[position]
        if character in "'\"":
            position = _string_end(source, position)
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif source.startswith("//", position):
            end = source.index("\n", position)
            source = source[:position] + source[end:]
            continue
        elif character == ";" or (character == "\n" and depth <= 0):
            statements.append(source[start:position].strip())
            start = position + 1
        position += 1
    statements.append(source[start:].strip())
    return [statement for statement in statements if statement]


def split_assignment(statement: str) -> tuple[str, str] | None:
    """(location, expression) of `location = expression`, or None if it is no assignment."""
    position = 0
    while position < len(statement):
        character = statement[position]
        if character in "'\"":
            position = _string_end(statement, position)
        elif character == "=":
            if statement[position + 1 : position + 2] == "=":
                return None
            return statement[:position].strip(), statement[position + 1 :].strip()
        position += 1
    return None


def _closing(text: str, position: int) -> int | None:
    """Where the bracket that opens at `position` closes."""
    depth = 0
    while position < len(text):
        if text[position] in "'\"":
            position = _string_end(text, position)
        elif text[position] in "([{":
            depth += 1
        elif position < len(text) and text[position] in ")]}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None


def _string_end(text: str, position: int) -> int:
    """The index of the quote that ends the string which begins at `position` (the text's end if none does)."""
    quote = text[position]
    position += 1
    while position < len(text) and text[position] != quote:
        position += 2 if text[position] == "\\" else 1
    return min(position, len(text) - 1)
