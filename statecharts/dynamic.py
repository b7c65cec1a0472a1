"""CEL expressions of charts whose expressions are dynamic: bare variables, checked when they are evaluated.

An expression sees the context's fields by their bare names (`Var1`), `_event`, `_sessionid`, `_name`, `_ioprocessors`
and `_x` (SCXML 1.0, 5.10), `In('state')`, and `event` and `context` as in strict charts unless fields are so named.
Everything is `dyn`. What is wrong with a text is said when it is evaluated; `fault` says it beforehand, for a warning.

The system variables live in the context, as SCXML has them live in the data model: `_sessionid`, and in `_x` the
`parent` (its session id) and `invokeid` of a session that another invoked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from cel_expr_python import cel

from statewright.statecharts.definition import Json
from statewright.statecharts.expressions import (
    Expression,
    ExpressionError,
    InState,
    ask_in,
    compile_text,
    environment,
    evaluate_text,
)
from statewright.statecharts.facts import Event

SCXML_PROCESSOR = "http://www.w3.org/TR/scxml/#SCXMLEventProcessor"
HTTP_PROCESSOR = "http://www.w3.org/TR/scxml/#BasicHTTPEventProcessor"
SYSTEM = frozenset(("_event", "_sessionid", "_name", "_ioprocessors", "_x"))

_STRINGS = re.compile(r"""[rRbB]{0,2}("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")
_NAMES = re.compile(r"(?<![\w.])([A-Za-z_]\w*)(?!\w|\s*\()")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_ASKS = re.compile(r"\b(In|in_state)\s*\(")
_UNKNOWN: Any = object()
_WORDS = frozenset(("true", "false", "null", "in"))
_TYPES = frozenset(("bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"))
_SUFFIX = "__field"


def location(session: str) -> str:
    """Where to send events for a session: its `_ioprocessors[…].location`, and the `origin` of what it sends."""
    return f"#_scxml_{session}"


class DynamicExpressions:
    """Compiles the expressions of one chart. Environments are shared by expressions of the same variables."""

    def __init__(self, chart: str, in_state: InState, known: Collection[str] = ()) -> None:
        """`known`: the fields, of which some may be named like a CEL type."""
        self.chart = chart
        self.in_state = in_state
        self._own = _TYPES & set(known)
        self._environments: dict[frozenset[str], cel.Env] = {}

    def compile(self, text: str) -> DynamicExpression:
        """Compile; never fails."""
        # CEL would take a field named like a type for the type.
        said = _outside_strings(text, lambda part: _NAMES.sub(self._renamed, part)) if self._own else text
        names = variables(said) - _TYPES
        found = self._environments.get(names)
        if found is None:
            found = self._environments[names] = environment(dict.fromkeys(names, cel.Type.DYN))
        try:
            return DynamicExpression(self, text, compile_text(found, said), names)
        except ExpressionError as error:
            return DynamicExpression(self, text, None, frozenset(), str(error))

    def _renamed(self, match: re.Match[str]) -> str:
        return f"{match[0]}{_SUFFIX}" if match[0] in self._own else match[0]


class DynamicExpression(Expression):
    """`fault` is why it can never be evaluated, "" if it can; `names` are the variables that it mentions."""

    __slots__ = ("_evaluable", "_expressions", "_fixed", "fault", "names")

    def __init__(
        self,
        expressions: DynamicExpressions,
        text: str,
        compiled: cel.Expression | None,
        names: frozenset[str],
        fault: str = "",
    ) -> None:
        self.text = text
        self.type = "dyn"
        self._evaluable = compiled
        self._expressions = expressions
        self.names = names
        self.fault = fault
        self._fixed = _UNKNOWN
        if compiled is not None and not names and not _ASKS.search(text):
            with suppress(ExpressionError):  # One that always fails does so when it is evaluated.
                self._fixed = evaluate_text(compiled, {})

    def evaluate(self, context: Mapping[str, Json], event: Event, configuration: int) -> Any:
        """The value. Raises ExpressionError, also for variables that are not there."""
        if self._evaluable is None:
            raise ExpressionError(self.fault)
        if self.text in context:  # the plain name of a variable
            return context[self.text]
        if self._fixed is not _UNKNOWN:
            return self._fixed
        data = {}
        for variable in self.names:
            name = variable.removesuffix(_SUFFIX)
            if name in context:
                data[variable] = context[name]
            elif name in _COMPUTED:
                data[variable] = _COMPUTED[name](self._expressions.chart, context, event)
        ask_in(self._expressions.in_state, configuration)
        return evaluate_text(self._evaluable, data)


def variables(text: str) -> frozenset[str]:
    """The names that a text uses as variables; those that a macro binds may be among them."""
    return frozenset(_NAMES.findall(_STRINGS.sub('""', text))) - _WORDS


def _outside_strings(text: str, change: Callable[[str], str]) -> str:
    parts, position = [], 0
    for string in _STRINGS.finditer(text):
        parts += [change(text[position : string.start()]), string[0]]
        position = string.end()
    return "".join([*parts, change(text[position:])])


def undeclared(text: str, known: Collection[str]) -> list[str]:
    """The variables that nothing declares, in order."""
    names = variables(text) - set(_BOUND.findall(text)) - SYSTEM - _TYPES - {"event", "context"}
    return sorted(name for name in names if name not in known)


def _event(chart: str, context: Mapping[str, Json], event: Event) -> Json:
    """`_event`: null until the first event (5.10.1); what an event doesn't have is null."""
    if not event.name:
        return None
    return {
        "name": event.name,
        "type": event.type,
        "sendid": event.sendid or None,
        "origin": event.origin or None,
        "origintype": event.origintype or None,
        "invokeid": event.invokeid or None,
        "data": event.data,
    }


def _ioprocessors(chart: str, context: Mapping[str, Json], event: Event) -> Json:
    """Both processors lead to the session's own queue; there is no HTTP server behind the second."""
    here = {"location": location(context.get("_sessionid", ""))}
    return {SCXML_PROCESSOR: here, "scxml": here, HTTP_PROCESSOR: here, "basichttp": here}


_COMPUTED: dict[str, Callable[[str, Mapping[str, Json], Event], Json]] = {
    "_event": _event,
    "_ioprocessors": _ioprocessors,
    "_name": lambda chart, context, event: chart,
    "_x": lambda chart, context, event: {},
    "event": lambda chart, context, event: {"name": event.name, "data": event.data},
    "context": lambda chart, context, event: dict(context),
}
