"""A chart's subscriptions to foreign subjects: how a message of a publisher that knows nothing of us becomes an
event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cel_expr_python import cel

from statewright.statecharts import definition as d
from statewright.statecharts.context import json_type
from statewright.statecharts.definition import Json
from statewright.statecharts.errors import MessageError
from statewright.statecharts.expressions import ExpressionError, compile_text, evaluate_text, to_json
from statewright.statecharts.places import Faults

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+|\.\*)*(\.>)?|\*(\.[^\s.*>]+|\.\*)*(\.>)?|>")
_VARIABLES = {
    "subject": cel.Type.STRING,
    "headers": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    "data": cel.Type.DYN,
}


class Mapped(NamedTuple):
    """What a message means: this event for this instance. `id` is "" if the subscription takes none from the
    message.
    """

    instance_id: str
    event: str
    data: Json
    id: str


class Subscription:
    """One compiled subscription. `subject` may hold NATS' wildcards `*` and `>`."""

    __slots__ = ("_data", "_event", "_id", "_instance", "event", "subject")

    def __init__(self, definition: d.Subscription, expressions: Mapping[str, cel.Expression]) -> None:
        self.subject = definition.subject
        self.event = definition.event
        self._instance = expressions["instance"]
        self._event = expressions.get("eventexpr")
        self._data = expressions["data"]
        self._id = expressions.get("id")

    def map(self, subject: str, headers: Mapping[str, str], data: Json) -> Mapped:
        """What this message means. Raises MessageError that says which part of it does not do, and why."""
        values = {"subject": subject, "headers": dict(headers), "data": data}
        event = self.event if self._event is None else self._text("eventexpr", self._event, values)
        return Mapped(
            instance_id=self._text("instance", self._instance, values),
            event=event,
            data=self._value("data", self._data, values),
            id="" if self._id is None else self._text("id", self._id, values),
        )

    def _text(self, part: str, expression: cel.Expression, values: Mapping[str, Any]) -> str:
        value = self._value(part, expression, values)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value:
            raise MessageError(f"{part} of a message on {values['subject']!r}: expected a text, got {json_type(value)}")
        return value

    def _value(self, part: str, expression: cel.Expression, values: Mapping[str, Any]) -> Json:
        try:
            return to_json(evaluate_text(expression, values))
        except ExpressionError as error:
            raise MessageError(f"{part} of a message on {values['subject']!r}: {error}") from None


def compile_subscription(definition: d.Subscription, faults: Faults) -> Subscription:
    """Compile one subscription; faults are noted, and then what comes back is of no use."""
    environment = cel.NewEnv(variables=_VARIABLES)
    if not _SUBJECT.fullmatch(definition.subject):
        faults.add(
            definition,
            f"expected a subject of dot-separated words, * or a last >, got {definition.subject!r}",
            "subject",
        )
    expressions = {}
    for part in ("instance", "eventexpr", "data", "id"):
        text = getattr(definition, part)
        if not text:
            continue
        try:
            expressions[part] = compile_text(environment, text)
        except ExpressionError as error:
            faults.add(definition, f"bad expression {text!r}: {error}; it sees subject, headers and data", part)
            expressions[part] = compile_text(environment, "''")
    for part in ("instance", "data"):
        expressions.setdefault(part, compile_text(environment, "''"))
    return Subscription(definition, expressions)
