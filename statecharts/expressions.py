"""CEL expressions: compiled and type-checked once, evaluated often.

An expression sees `event.name`, `event.data`, each declared context field as `context.<field>` and, if it names
`context` as a whole, the context as a map; `In('state')` asks the configuration. Each field is a variable of its
own with a dotted name, so that an evaluation passes only the fields that the text mentions: that is a third of the
cost of passing the whole context, and it lets the checker know every field's type.

Nothing is written anywhere: an evaluation is a function of (context, event, configuration). One thing CEL leaves open:
a map has no order. Maps that come out are sorted, but a list that an expression makes from a map's keys
(`context.votes.map(name, name)`) may come in any order.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_strings

from statewright.statecharts.context import JSON_DEPTH_MAX, ContextType, json_type
from statewright.statecharts.definition import Json
from statewright.statecharts.durations import format_duration
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.facts import Event
from statewright.statecharts.shortcuts import UNKNOWN, shortcut

EXPRESSION_CHARS_MAX = 10_000

_PATHS = re.compile(r"[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*")
_ERRORS = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_ASKED = re.compile(r"""\b(?:In|in_state)\s*\(\s*(["'])(.*?)\1\s*\)""")
_ABSENT = re.compile(r"has\s*\(\s*context\s*\.\s*(\w+)\s*\)")

InState = Callable[[str, int], bool]
"""(state id, configuration) -> whether it is active."""


class ExpressionError(StatewrightError):
    """An expression was refused when compiled, or failed when evaluated. The message says why."""


class _Asking(threading.local):
    """The configuration that `In()` asks, for the length of one evaluation: CEL functions get only their arguments."""

    in_state: InState
    configuration: int


_asking = _Asking()


def ask_in(in_state: InState, configuration: int) -> None:
    """Say what `In()` asks from here on, in this thread."""
    _asking.in_state, _asking.configuration = in_state, configuration


def _in_state(state: str) -> bool:
    return _asking.in_state(state, _asking.configuration)


_IN = [
    cel.FunctionDecl(name, [cel.Overload(f"{name}_string", cel.Type.BOOL, [cel.Type.STRING], False, _in_state)])
    for name in ("In", "in_state")
]
_EXTENSIONS = [ext_strings.ExtStrings(), ext_math.ExtMath()]


class Expression:
    """A compiled expression. `type` is its static type in CEL's words, lower case (`int`, `list<string>`, `dyn`).

    Most expressions in charts are constants, paths and comparisons of them. Those are answered without CEL
    (`shortcuts.py`), with what CEL would give; whatever is unusual (a key that is not there, say) is left to CEL.
    """

    __slots__ = (
        "_compiled",
        "_constant",
        "_fields",
        "_in_state",
        "_name",
        "_payload",
        "_shortcut",
        "_whole",
        "text",
        "type",
    )

    def __init__(
        self, text: str, compiled: cel.Expression, static_type: str, variables: Iterable[str], in_state: InState | None
    ) -> None:
        names = tuple(variables)
        self.text = text
        self.type = static_type
        self._compiled = compiled
        self._in_state = in_state
        self._name, self._payload, self._whole = "event.name" in names, "event.data" in names, "context" in names
        self._fields = tuple((name, name[len("context.") :]) for name in names if name.startswith("context."))
        self._shortcut = shortcut(text) if in_state is None else None
        self._constant = UNKNOWN
        if not names and in_state is None:
            with suppress(ExpressionError):  # One that always fails does so when it is evaluated.
                self._constant = evaluate_text(compiled, {})

    def evaluate(self, context: Mapping[str, Json], event: Event, configuration: int) -> Any:
        """The value, as Python gives it (bool, int, float, str, None, list, dict, datetime, timedelta).

        Raises ExpressionError if it cannot be evaluated.
        """
        if self._constant is not UNKNOWN:
            return self._constant
        if self._shortcut is not None:
            value = self._shortcut(context, event)
            if value is not UNKNOWN:
                return value
        data: dict[str, Any] = {}
        try:
            for name, key in self._fields:
                data[name] = context[key]
        except KeyError as error:
            raise ExpressionError(f"the context has no field {error}") from None
        if self._payload:
            data["event.data"] = event.data
        if self._name:
            data["event.name"] = event.name
        if self._whole:
            data["context"] = dict(context)
        if self._in_state is not None:
            _asking.in_state, _asking.configuration = self._in_state, configuration
        return evaluate_text(self._compiled, data)


class Formula:
    """An expression outside a chart, over variables of any type that are given when it is evaluated. `type` is its
    static type, as of `Expression`."""

    __slots__ = ("_compiled", "text", "type")

    def __init__(self, text: str, variables: Collection[str]) -> None:
        """Raises ExpressionError with the checker's complaints."""
        try:
            self._compiled = compile_text(_untyped(tuple(variables)), text)
        except ExpressionError as error:
            seen = f"; it may use {', '.join(variables)}" if "undeclared" in str(error) else ""
            raise ExpressionError(f"{error}{seen}") from None
        self.text = text
        self.type = self._compiled.return_type().name().lower().replace(" ", "")

    def evaluate(self, values: Mapping[str, Json]) -> Any:
        """The value, as Python gives it. Raises ExpressionError."""
        return evaluate_text(self._compiled, values)


def evaluate_text(compiled: cel.Expression, data: Mapping[str, Any]) -> Any:
    """The value of a compiled text with these variables. Raises ExpressionError."""
    try:
        result = compiled.eval(data=data)
        value = result.plain_value()
    except Exception as error:  # the binding raises RuntimeError for its budget, TypeError for what it can't convert
        raise ExpressionError(_first_line(str(error))) from None
    # A failure comes back as a value of type ERROR whose plain form is its message.
    if type(value) is str and result.type() in _FAILURES:
        raise ExpressionError(_first_line(value))
    return value


NO_BOOL = "expected a condition that is true or false, it is neither"
_FAILURES = (cel.Type.ERROR, cel.Type.UNKNOWN)


class Expressions:
    """Compiles the expressions of one chart against its declared context."""

    def __init__(self, context: ContextType, in_state: InState, states: Collection[str] | None = None) -> None:
        """`states`: the ids that `In()` may ask for by a literal; None leaves them unchecked."""
        self._states = states
        fields = context.fields
        common = {"event.name": cel.Type.STRING, "event.data": cel.Type.DYN}
        checked = common | {f"context.{name}": field.checked for name, field in fields.items()}
        evaluated = common | {f"context.{name}": field.evaluated for name, field in fields.items()}
        whole = {"context": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)}
        self._names = frozenset(checked)
        self._fields = tuple(fields)
        self._differing = frozenset(name for name in checked if checked[name] != evaluated[name])
        self._in_state = in_state
        self._environments = {
            (False, False): environment(checked),
            (False, True): environment(evaluated),
            (True, False): environment(checked | whole),
            (True, True): environment(evaluated | whole),
        }

    def compile(self, text: str) -> Expression:
        """Compile and type-check. Raises ExpressionError with every complaint of the checker."""
        if absent := _ABSENT.search(text):
            raise ExpressionError(
                f"has(context.{absent[1]}) is not needed: a declared field is always there; compare it with null"
            )
        for _, state in _ASKED.findall(text):
            if self._states is not None and state not in self._states:
                raise ExpressionError(f"In() asks for the unknown state {state!r}")
        used = mentioned(text, self._names)
        whole = False
        try:
            compiled = compile_text(self._environments[False, False], text)
        except ExpressionError as error:
            # `context` itself is declared only where it is used as a whole: with it, `context.typo` type-checks.
            if not error.args[0].startswith("undeclared reference to 'context' "):
                raise ExpressionError(self._explain(error.args[0])) from None
            whole = True
            compiled = compile_text(self._environments[True, False], text)
            self._refuse_undeclared(text)
        static_type = compiled.return_type().name().lower().replace(" ", "")
        if used & self._differing or whole:
            compiled = compile_text(self._environments[whole, True], text)
        asks = self._in_state if re.search(r"\b(In|in_state)\s*\(", text) else None
        return Expression(text, compiled, static_type, sorted(used) + ["context"] * whole, asks)

    def _refuse_undeclared(self, text: str) -> None:
        for path in _paths(text):
            parts = path.split(".")
            if parts[0] == "context" and len(parts) > 1 and parts[1] not in self._fields:
                raise ExpressionError(self._explain(f"undeclared reference to 'context.{parts[1]}'"))

    def _explain(self, message: str) -> str:
        if "undeclared reference to 'context." in message:
            return f"{message}; the context declares {', '.join(self._fields) or 'no fields'}"
        if "undeclared reference to 'event" in message:
            return f"{message}; an event has event.name and event.data"
        return message


def compile_text(environment: cel.Env, text: str) -> cel.Expression:
    """Compile `text`. Raises ExpressionError with the checker's complaints and their columns."""
    if len(text) > EXPRESSION_CHARS_MAX:
        raise ExpressionError(f"expected at most {EXPRESSION_CHARS_MAX} characters, got {len(text)}")
    try:
        return environment.compile(text)
    except RuntimeError as error:
        found = _ERRORS.findall(str(error))
        if not found:
            raise ExpressionError(_first_line(str(error))) from None
        complaints = [
            f"{message.replace(' (in container ' + chr(39) * 2 + ')', '')} (column {column})"
            for _, column, message in found
        ]
        raise ExpressionError("; ".join(complaints)) from None


def mentioned(text: str, names: frozenset[str]) -> frozenset[str]:
    """Which of the dotted variable `names` the text mentions; one too many (in a string, say) does no harm."""
    found = set()
    for path in _paths(text):
        while path:
            if path in names:
                found.add(path)
            path = path.rpartition(".")[0]
    return frozenset(found)


def assignable(static_type: str, declared: str) -> bool:
    """Whether a value of this static type can fit a field so declared (`dyn` parts are checked when they come)."""
    static_type = static_type.replace("<", "(").replace(">", ")")
    declared = declared.replace(" ", "")
    if declared.endswith("?"):
        return static_type == "null" or assignable(static_type, declared[:-1])
    if "dyn" in (static_type, declared) or static_type == declared:
        return True
    if static_type == "int" and declared == "double":
        return True
    for outer in ("list(", "map(string,"):
        if declared.startswith(outer) and static_type.startswith(outer):
            return assignable(static_type[len(outer) : -1], declared[len(outer) : -1])
    return declared.startswith("map(") and static_type.startswith("map(dyn,")


_SCALARS = frozenset({type(None), bool, int, float, str})


def to_json(value: Any, depth: int = 0) -> Json:
    """A CEL value as JSON: durations as `90s`, timestamps as RFC 3339, keys of maps in sorted order.

    CEL keeps maps in no particular order; sorting them makes a step's outcome the same every time.
    Raises ExpressionError for what JSON cannot hold (bytes, types) and for what nests deeper than a context may.
    """
    if depth > JSON_DEPTH_MAX:
        raise ExpressionError(f"expected a value at most {JSON_DEPTH_MAX} deep, got something deeper")
    if type(value) in _SCALARS:
        return value
    if isinstance(value, list):
        return [to_json(item, depth + 1) for item in value]
    if isinstance(value, dict):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise ExpressionError(f"expected a map with string keys, got the key {bad[0]!r}")
        return {key: to_json(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, timedelta):
        ns = (value.days * 86_400_000_000 + value.seconds * 1_000_000 + value.microseconds) * 1_000
        return format_duration(ns) if ns >= 0 else f"-{format_duration(-ns)}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise ExpressionError(f"expected a value that JSON can hold, got {json_type(value)}")


def environment(variables: Mapping[str, cel.Type]) -> cel.Env:
    """What expressions are compiled in: these variables, CEL's string and math functions, and `In()`."""
    return cel.NewEnv(variables=dict(variables), extensions=_EXTENSIONS, functions=_IN)


@lru_cache(maxsize=100)
def _untyped(variables: tuple[str, ...]) -> cel.Env:
    return environment(dict.fromkeys(variables, cel.Type.DYN))


def _paths(text: str) -> list[str]:
    return [re.sub(r"\s+", "", path) for path in _PATHS.findall(text)]


def _first_line(message: str) -> str:
    # What CEL says of `1 ? a : b`.
    line = message.partition("\n")[0].replace("No matching overloads found : <jump_condition>", NO_BOOL)
    return re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", line)
