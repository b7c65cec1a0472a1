"""YAML 1.2 and JSON texts as plain trees, with the line of every part.

Strict: duplicate keys, tags, several documents and other surprises are refused with their line. Bounded:
size, depth and the number of nodes, aliases expanded (so that an alias bomb is refused, not built). Scalars
follow YAML 1.2's core schema: `on`, `yes` and dates are strings.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from statewright.statecharts.errors import ChartError, Fault
from statewright.statecharts.places import Path, show

DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
DEPTH_MAX = 200
NODES_MAX = 500_000
DEPTH_MESSAGE = f"expected at most {DEPTH_MAX} levels of nesting, got more"

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # type: ignore[dict-item]

Lines = dict[Path, int]


def read_document(data: bytes, *, is_json: bool = False) -> tuple[Any, Lines]:
    """The tree and the 1-based line of each of its paths. Raises ChartError with the line of what is wrong."""
    if len(data) > DOCUMENT_BYTES_MAX:
        _refuse(f"expected a file of at most {DOCUMENT_BYTES_MAX} bytes, got {len(data)}", None)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(f"expected UTF-8, got the byte 0x{data[error.start]:02x}", data.count(b"\n", 0, error.start) + 1)
    if is_json:
        _require_json(text)
    try:
        return _Builder(text).read()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(f"not valid YAML: {error.problem or error.context}", mark.line + 1 if mark else None)
    except YAMLError as error:
        _refuse(f"not valid YAML: {str(error).partition(chr(10))[0]}", None)
    except RecursionError:
        _refuse(DEPTH_MESSAGE, None)


def _require_json(text: str) -> None:
    """JSON is read by the YAML reader, of whose language it is a part, but nothing else may stand in a .json file."""
    try:
        json.loads(text, parse_constant=lambda name: _refuse(f"expected JSON, got {name}", None))
    except json.JSONDecodeError as error:
        _refuse(f"not valid JSON: {error.msg}", error.lineno)
    except RecursionError:
        _refuse(DEPTH_MESSAGE, None)


def _refuse(message: str, line: int | None, path: Path = ()) -> NoReturn:
    raise ChartError([Fault(path=show(path), message=message, line=line)])


class _Builder:
    """Builds the tree from the parser's events; anchors keep their events, which an alias plays again."""

    def __init__(self, text: str) -> None:
        self._events = iter(YAML(typ="safe", pure=True).parse(text))
        self._anchors: dict[str, list[Event]] = {}
        self._recording: list[list[Event]] = []
        self._playing: list[list[Event]] = []
        self._lines: Lines = {}
        self._nodes = 0

    def read(self) -> tuple[Any, Lines]:
        event = self._next()
        while isinstance(event, StreamStartEvent | DocumentStartEvent):
            event = self._next()
        if isinstance(event, StreamEndEvent):
            _refuse("expected a chart, got an empty document", 1)
        tree = self._node(event, ())
        event = self._next()
        while not isinstance(event, StreamEndEvent):
            if not isinstance(event, DocumentEndEvent):
                _refuse("expected one document, got several", event.start_mark.line + 1)
            event = self._next()
        return tree, self._lines

    def _next(self) -> Event:
        if self._playing:
            event = self._playing[-1].pop()
            if not self._playing[-1]:
                self._playing.pop()
        else:
            event = next(self._events)
        for recording in self._recording:
            recording.append(event)
        return event

    def _node(self, event: Any, path: Path) -> Any:
        line = event.start_mark.line + 1
        self._nodes += 1
        if self._nodes > NODES_MAX:
            _refuse(f"expected at most {NODES_MAX} nodes (aliases count in full), got more", line, path)
        if len(path) > DEPTH_MAX:
            _refuse(DEPTH_MESSAGE, line, path)
        self._lines.setdefault(path, line)
        if isinstance(event, AliasEvent):
            return self._alias(event, path, line)
        if event.tag is not None and event.tag != "!":
            _refuse(f"expected no YAML tag, got {event.tag!r}", line, path)
        if event.anchor is None:
            return self._content(event, path, line)
        self._recording.append([event])
        content = self._content(event, path, line)
        self._anchors[event.anchor] = self._recording.pop()
        return content

    def _alias(self, event: AliasEvent, path: Path, line: int) -> Any:
        events = self._anchors.get(event.anchor)
        if events is None:
            _refuse(f"expected an alias of an earlier, finished anchor, got *{event.anchor}", line, path)
        # Anchors around this one remember what the alias stands for, not the alias.
        for recording in self._recording:
            recording[-1] = events[0]
        self._playing.append(events[:0:-1])
        if not self._playing[-1]:
            self._playing.pop()
        return self._content(events[0], path, line)

    def _content(self, event: Event, path: Path, line: int) -> Any:
        if isinstance(event, ScalarEvent):
            return self._scalar(event, path, line)
        if isinstance(event, SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := self._next(), SequenceEndEvent):
                items.append(self._node(event, (*path, len(items))))
            return items
        if not isinstance(event, MappingStartEvent):
            _refuse("expected a value", line, path)
        return self._mapping(path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, ScalarEvent):
                _refuse("expected a key that is a plain word, got something else", line, path)
            if event.value in mapping:
                _refuse(f"the key {event.value!r} is given twice", line, (*path, event.value))
            key = event.value
            self._lines[(*path, key)] = line
            mapping[key] = self._node(self._next(), (*path, key))
        return mapping

    def _scalar(self, event: ScalarEvent, path: Path, line: int) -> Any:
        value: str = event.value
        if not event.implicit[0] or event.style in ("'", '"', "|", ">"):
            return value
        if value in _WORDS:
            return _WORDS[value]
        if _INT.fullmatch(value):
            return int(value, 0 if value[:2] in ("0o", "0x") else 10)
        if _FLOAT.fullmatch(value):
            return float(value)
        if value.lower().lstrip("+-") in (".inf", ".nan"):
            _refuse(f"expected a number that JSON can hold, got {value}", line, path)
        return value
