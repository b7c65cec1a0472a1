"""The one error tree. Every error of Statewright is a `StatewrightError`; its `code` is the wire's code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import msgspec


class StatewrightError(Exception):
    """Base of all errors. `code` is one of the codes that replies on the bus carry."""

    code: ClassVar[str] = "invalid"


Severity = Literal["error", "warning", "info"]
"""error: the chart is refused, or can't do its work. warning: it may not mean what its author wanted. info: good to
know, and often on purpose."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with a chart, with its place.

    `path` is the place in the definition (`states.draft.on.submit[0].guard`), `state` the id of the nearest
    state ("" for the chart itself), `line` the 1-based line in the file it came from (None without a file).
    """

    path: str
    message: str
    state: str = ""
    line: int | None = None
    severity: Severity = "error"

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line is not None else ""
        place = ", ".join(part for part in (line, self.path) if part)
        return f"{place or 'chart'}: {self.message}"


class ChartError(StatewrightError):
    """A definition was refused. `faults` holds all that was found, in document order; `chart` names it."""

    def __init__(self, faults: Iterable[Fault], chart: str = "") -> None:
        self.faults = tuple(faults)
        self.chart = chart
        count = len(self.faults)
        counted = f"{count} fault{'s' if count != 1 else ''}"
        head = f"chart {chart!r} has {counted}" if chart else counted
        super().__init__("; ".join([head, *map(str, self.faults)]))


class ContextError(StatewrightError):
    """A context (or a value assigned to it) does not fit the chart's declared context."""


class ChartNotFound(StatewrightError):
    """There is no such chart file, module or attribute. `source` is what was asked for."""

    code: ClassVar[str] = "not_found"

    def __init__(self, source: str, detail: str) -> None:
        self.source = source
        super().__init__(f"no chart at {source!r}: {detail}")


class UnknownState(StatewrightError):
    """A recorded configuration or history names a state that the chart does not have."""


class MessageError(StatewrightError):
    """A message on a subscribed subject cannot be mapped to an event; the message says which part and why."""
