"""XML as a tree of elements with their lines. Safe: no document type, so no entities; bounded in size and depth.

A namespace stays with its element; attributes are kept by their local names, ours with the prefix `statewright:`, those
of foreign namespaces are dropped.
"""

from __future__ import annotations

import re
from typing import NoReturn
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import msgspec

from statewright.statecharts.documents import DEPTH_MAX, DEPTH_MESSAGE, DOCUMENT_BYTES_MAX
from statewright.statecharts.errors import ChartError, Fault
from statewright.statecharts.places import Path

SCXML = "http://www.w3.org/2005/07/scxml"
EXTENSION = "urn:statewright"
"""The namespace of what SCXML has no element for (`emit`, `call` and `perform`), and of the attribute `version`."""
PREFIX = "statewright:"
ELEMENTS_MAX = 200_000


class Element(msgspec.Struct, eq=False):
    """`tag` is the local name, `space` the namespace; `parts` are texts and elements in order."""

    tag: str
    space: str
    attributes: dict[str, str]
    line: int
    path: Path
    parts: list[str | Element] = []

    @property
    def elements(self) -> list[Element]:
        return [part for part in self.parts if isinstance(part, Element)]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    def get(self, name: str) -> str:
        """The attribute, stripped; "" if there is none."""
        return self.attributes.get(name, "").strip()


def parse_elements(data: bytes, path: Path = ()) -> Element:
    """The document's element. Raises ChartError with the line of what is wrong. `path` is what all paths begin with."""
    if len(data) > DOCUMENT_BYTES_MAX:
        refuse(f"expected a file of at most {DOCUMENT_BYTES_MAX} bytes, got more")
    builder = _Builder(path)
    try:
        builder.parser.Parse(data, True)
    except expat.ExpatError as error:
        refuse(f"not valid XML: {expat.ErrorString(error.code)}", error.lineno)
    except (ValueError, LookupError) as error:  # an encoding that Python doesn't know
        refuse(f"not valid XML: {error}", 1)
    assert builder.root is not None
    return builder.root


def refuse(message: str, line: int | None = None) -> NoReturn:
    raise ChartError([Fault(path="", message=message, line=line)])


def serialize(element: Element, space: str = "") -> str:
    """The element as XML, with its namespace declared where it differs from `space`."""
    attributes = dict(element.attributes)
    if element.space != space:
        attributes = {"xmlns": element.space, **attributes}
    if any(name.startswith(PREFIX) for name in attributes):
        attributes = {f"xmlns:{PREFIX[:-1]}": EXTENSION, **attributes}
    head = element.tag + "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
    if not element.parts:
        return f"<{head}/>"
    inner = "".join(escape(part) if isinstance(part, str) else serialize(part, element.space) for part in element.parts)
    return f"<{head}>{inner}</{element.tag}>"


def words(text: str) -> str:
    """The text with its white space normalized."""
    return re.sub(r"\s+", " ", text).strip()


class _Builder:
    def __init__(self, path: Path) -> None:
        self.root: Element | None = None
        self._path = path
        self._stack: list[Element] = []
        self._counts: list[dict[str, int]] = []
        self._number = 0
        self.parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def _doctype(self, *_: object) -> None:
        refuse("expected no document type: entities and external subsets are not read", self.parser.CurrentLineNumber)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        self._number += 1
        if self._number > ELEMENTS_MAX:
            refuse(f"expected at most {ELEMENTS_MAX} elements, got more", line)
        if len(self._stack) >= DEPTH_MAX:
            refuse(DEPTH_MESSAGE, line)
        space, _, tag = name.rpartition(" ")
        ours = {key.replace(f"{EXTENSION} ", PREFIX): value for key, value in attributes.items()}
        kept = {key: value for key, value in ours.items() if " " not in key}
        path = self._path
        if self._stack:
            counts = self._counts[-1]
            index = counts[tag] = counts.get(tag, -1) + 1
            path = (*self._stack[-1].path, tag, index)
        element = Element(tag, space, kept, line, path, [])
        if self._stack:
            self._stack[-1].parts.append(element)
        else:
            self.root = element
        self._stack.append(element)
        self._counts.append({})

    def _end(self, name: str) -> None:
        self._stack.pop()
        self._counts.pop()

    def _text(self, text: str) -> None:
        if self._stack:
            self._stack[-1].parts.append(text)
