"""Runs a chart purely, on a virtual clock: nothing is stored, sent or performed, and time passes only when told.

    simulation = Simulation(chart, {"amount": 900})
    simulation.begin()
    simulation.feed(parse_token('submit={"by": "ann"}'))
    line = simulation.feed(parse_token("+24h"))

Each call gives one line, the state of things after it, as `statewright simulate --json` prints it. Due timers fire
in the order of their due times, those of one instant in the order in which they were set; a send without a delay is
due at once, so it is delivered before the next token. Invoked children run on the same clock (see `sessions`). Effects
are listed, not performed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import Json
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.facts import Event, Step
from statewright.statecharts.sessions import Session, Sessions
from statewright.statecharts.sessions import SimulationError as SimulationError


class Advance(NamedTuple):
    """The token `+DURATION`."""

    ns: int


class Token(NamedTuple):
    """A token as written and as understood."""

    text: str
    meaning: Event | Advance


class EffectLine(msgspec.Struct, frozen=True):
    id: str
    name: str
    kind: str
    data: Json


class Line(msgspec.Struct, frozen=True):
    """One line of output. `effects` are those requested since the line before."""

    token: str | None
    configuration: tuple[str, ...]
    leaves: tuple[str, ...]
    context: Mapping[str, Json]
    effects: tuple[EffectLine, ...]
    status: Literal["active", "completed", "failed", "cancelled"]


def parse_token(text: str) -> Token:
    """An event `name`, `name=JSON` or `+DURATION`. Raises SimulationError that says what was expected."""
    if text.startswith("+"):
        ns = parse_duration(text[1:])
        if ns is None:
            raise SimulationError(f"token {text!r}: expected a duration after '+', such as +50ms, +24h or +PT24H")
        return Token(text, Advance(ns))
    name, equals, data = text.partition("=")
    if not name or any(character.isspace() for character in name):
        raise SimulationError(f"token {text!r}: expected an event name, name=JSON or +DURATION")
    try:
        return Token(text, Event(name, json.loads(data, parse_constant=_refuse_constant) if equals else None))
    except (ValueError, RecursionError) as error:
        raise SimulationError(f"token {text!r}: expected JSON after '=': {error}") from None


class Simulation:
    """One simulated instance, with the children that it invokes. `reason` says why the last event changed nothing."""

    def __init__(self, chart: Chart, context: Mapping[str, Json] | None = None) -> None:
        self.chart = chart
        self.reason = ""
        self.steps: list[Step] = []
        """All steps of the instance so far, the start first."""
        self._given = context or {}
        self._sessions = Sessions(chart, self._watch)
        self._effects: list[EffectLine] = []
        self._counts: dict[str, int] = {}

    @property
    def now_ns(self) -> int:
        return self._sessions.now_ns

    @property
    def due_ns(self) -> int | None:
        """When the next timer is due (on the clock of `now_ns`); None if none is set."""
        return self._sessions.due_ns

    @property
    def status(self) -> Literal["active", "completed", "failed", "cancelled"]:
        return self._sessions.first.status

    @property
    def output(self) -> Json:
        return self._sessions.first.output

    def begin(self) -> Line:
        """Start the instance. Raises ContextError if the context does not fit the chart."""
        self._sessions.begin(self._given)
        self._fire_until(self.now_ns)
        return self._line(None)

    def feed(self, token: Token) -> Line:
        """Deliver an event or advance the clock, and let fire what is due by then."""
        if isinstance(token.meaning, Advance):
            self._fire_until(self.now_ns + token.meaning.ns)
        else:
            reason = self._sessions.deliver(self._sessions.first, token.meaning)
            self._sessions.fire_until(self.now_ns)
            self.reason = reason
        return self._line(token.text)

    def run(self) -> Line:
        """Advance through every pending delay. Raises SimulationError if that does not end."""
        self._fire_until(None)
        return self._line(None)

    def _fire_until(self, end_ns: int | None) -> None:
        count = len(self.steps)
        self._sessions.fire_until(end_ns)
        if len(self.steps) > count:
            last = self.steps[-1]
            failed = self._sessions.first.error if last.status == "active" else ""  # else the chart itself says so
            self.reason = failed or last.reason

    def _watch(self, session: Session, step: Step) -> None:
        if session is self._sessions.first:
            self.steps.append(step)
            self.reason = step.reason
        count = self._counts[session.id] = self._counts.get(session.id, 0) + 1
        self._effects += [
            EffectLine(f"{session.id}-{count}-{index}", effect.name, effect.kind, effect.data)
            for index, effect in enumerate(step.effects)
        ]

    def _line(self, token: str | None) -> Line:
        machine, snapshot = self.chart.machine, self._sessions.first.snapshot
        effects, self._effects = tuple(self._effects), []
        # The names with an underscore are SCXML's system variables.
        shown = {key: value for key, value in snapshot.context.items() if machine.strict or not key.startswith("_")}
        return Line(
            token=token,
            configuration=machine.names(snapshot.configuration),
            leaves=machine.leaves(snapshot.configuration),
            context=shown,
            effects=effects,
            status=self.status,
        )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
