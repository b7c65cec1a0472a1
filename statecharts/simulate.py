"""Runs a chart purely, on a virtual clock: nothing is stored, sent or performed, and time passes only when told.

    simulation = Simulation(chart, {"amount": 900})
    simulation.begin()
    simulation.feed(parse_token('submit={"by": "ann"}'))
    line = simulation.feed(parse_token("+24h"))

Each call gives one line, the state of things after it, as `statewright simulate --json` prints it. Due timers fire
in the order of their due times, those of one instant in the order in which they were set; a send without a delay is
due at once, so it is delivered before the next token. Effects are listed, not performed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import Json
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.facts import Effect, Event, Snapshot, Step, TimerSet

DELIVERIES_MAX = 10_000
"""Timers that fire for one token, or for `run`, before the simulation gives up."""


class SimulationError(StatewrightError):
    """A token is not understood, or the simulation reached its bound."""


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
    status: Literal["active", "completed", "failed"]


class _Pending(NamedTuple):
    due_ns: int
    order: int
    timer: TimerSet


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
    """One simulated instance. `reason` says why the last event changed nothing, "" if it did."""

    def __init__(self, chart: Chart, context: Mapping[str, Json] | None = None) -> None:
        self.chart = chart
        self.now_ns = 0
        self.reason = ""
        self.status: Literal["active", "completed", "failed"] = "active"
        self.output: Json = None
        self.steps: list[Step] = []
        """All steps so far, the start first."""
        self._given = context or {}
        self._snapshot = Snapshot(0, {})
        self._pending: dict[str, _Pending] = {}
        self._set = 0
        self._effects: list[EffectLine] = []

    def begin(self) -> Line:
        """Start the instance. Raises ContextError if the context does not fit the chart."""
        step = self.chart.machine.start(self._given)
        self._take(step)
        if step.reason:
            self.status = "failed"
        self._fire_until(self.now_ns)
        return self._line(None)

    def feed(self, token: Token) -> Line:
        """Deliver an event or advance the clock, and let fire what is due by then."""
        if isinstance(token.meaning, Advance):
            self._fire_until(self.now_ns + token.meaning.ns)
        else:
            self._deliver(token.meaning)
            reason = self.reason
            self._fire_until(self.now_ns)
            self.reason = reason
        return self._line(token.text)

    def run(self) -> Line:
        """Advance through every pending delay. Raises SimulationError if that does not end."""
        self._fire_until(None)
        return self._line(None)

    def _fire_until(self, end_ns: int | None) -> None:
        for _ in range(DELIVERIES_MAX):
            pending = min(self._pending.values(), default=None, key=lambda item: item[:2])
            if pending is None or (end_ns is not None and pending.due_ns > end_ns):
                break
            del self._pending[pending.timer.timer_id]
            self.now_ns = max(self.now_ns, pending.due_ns)
            self._deliver(Event(pending.timer.event, pending.timer.data, sendid=pending.timer.sendid))
        else:
            leaves = ", ".join(self.chart.machine.leaves(self._snapshot.configuration)[:8])
            raise SimulationError(
                f"timers still fire after {DELIVERIES_MAX} of them, at +{self.now_ns / 1e9:g}s in {leaves}; "
                "the chart sets them for ever"
            )
        if end_ns is not None:
            self.now_ns = max(self.now_ns, end_ns)

    def _deliver(self, event: Event) -> None:
        if self.status != "active":
            self.reason = f"the instance is {self.status}"
            return
        self._take(self.chart.machine.step(self._snapshot, event))

    def _take(self, step: Step) -> None:
        self.steps.append(step)
        self.reason = step.reason
        if step.reason:
            return
        self._snapshot = step.snapshot
        self.status = step.status
        self.output = step.output
        for timer in step.timers:
            self._pending.pop(timer.timer_id, None)
            if isinstance(timer, TimerSet):
                self._set += 1
                self._pending[timer.timer_id] = _Pending(self.now_ns + timer.delay_ns, self._set, timer)
        self._effects += [self._effect_line(index, effect) for index, effect in enumerate(step.effects)]
        if self.status == "completed":
            self._pending.clear()

    def _effect_line(self, index: int, effect: Effect) -> EffectLine:
        return EffectLine(f"{self.chart.name}-{len(self.steps)}-{index}", effect.name, effect.kind, effect.data)

    def _line(self, token: str | None) -> Line:
        machine, configuration = self.chart.machine, self._snapshot.configuration
        effects, self._effects = tuple(self._effects), []
        return Line(
            token=token,
            configuration=machine.names(configuration),
            leaves=machine.leaves(configuration),
            context=dict(self._snapshot.context),
            effects=effects,
            status=self.status,
        )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
