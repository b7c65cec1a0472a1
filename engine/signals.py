"""Signals: how much work waits and for how long, for who scales the engine or asks whether it is well.

Invariants: reading them costs a few index look-ups, whatever waits: counts stop at `COUNT_MAX`, and nothing is counted
while nobody asks.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.definitions import Definitions
from statewright.engine.effects import Effects
from statewright.engine.followers import Follower
from statewright.engine.log import InstanceLog
from statewright.engine.recorder import Backlog
from statewright.engine.relatives import KINDS
from statewright.engine.runtime import Runtime
from statewright.engine.timers import Timers

COUNT_MAX = 10_000
"""Where counting stops: a count of so many means "at least"."""
KINDS_COUNTED = (*KINDS, "emit", "call")


class Lag(msgspec.Struct, frozen=True):
    """How far a projection is behind the log: in facts, and in the age of the first one that it lacks."""

    facts: int
    seconds: float


class Signals(msgspec.Struct, frozen=True):
    """time: ns UTC. queue: requests that wait for their answer's commit to begin. recorded: facts made durable in this
    run, and how many a second lately. timers_due, effects: at most `COUNT_MAX` each. effects: by queue,
    "perform.<name>" or another kind; `due` could be performed now, `open` are all that have not ended. The seconds say
    how long the first one waits that could be done here. projections: by name."""

    time: int
    queue: int
    recorded: int
    recorded_per_second: float
    timers_due: int
    timers_late_seconds: float
    effects: dict[str, Backlog]
    effects_running: int
    effects_late_seconds: float
    projections: dict[str, Lag]


class Gauge:
    """Reads the signals of one engine."""

    def __init__(
        self,
        log: InstanceLog,
        definitions: Definitions,
        runtime: Runtime,
        timers: Timers,
        effects: Effects,
        clock: Clock,
    ) -> None:
        self._log = log
        self._definitions = definitions
        self._runtime = runtime
        self._timers = timers
        self._effects = effects
        self._clock = clock
        self._since = clock.now()
        self._recorded = 0
        self._rate = 0.0

    async def read(self, followers: Iterable[Follower]) -> Signals:
        """Raises what the store raises when it can't be read."""
        now = self._clock.now()
        asked, kinds = self._queues()
        on_reader = self._runtime.on_reader
        recorder = self._log.instances
        lags = {follower.name: await on_reader(self._lag, follower.position, now) for follower in followers}
        return Signals(
            time=now,
            queue=self._runtime.waiting,
            recorded=self._runtime.recorded,
            recorded_per_second=self._rate_at(now),
            timers_due=await on_reader(recorder.count_timers, now, COUNT_MAX),
            timers_late_seconds=_seconds(await self._timers.late_ns()),
            effects=dict(await on_reader(lambda: recorder.count_effects(now, COUNT_MAX, names=asked, kinds=kinds))),
            effects_running=self._effects.running,
            effects_late_seconds=_seconds(await self._effects.late_ns()),
            projections=lags,
        )

    def _queues(self) -> tuple[list[str], list[str]]:
        """Those that are performed here, and those that the charts ask for all the same."""
        names, kinds = self._effects.queues()
        wanted = {name for chart in self._definitions.newest.values() for name in chart.handler_names}
        return sorted(wanted.union(names)), sorted({*kinds, *KINDS_COUNTED})

    def _lag(self, position: int, now: int) -> Lag:
        end = self._log.instances.max_notification_id() or 0
        if position >= end:
            return Lag(0, 0.0)
        first = self._log.following(position, 1)
        return Lag(end - position, _seconds(max(0, now - first[0].fact.time)) if first else 0.0)

    def _rate_at(self, now: int) -> float:
        """Over the time since it was last computed, which is at least a second."""
        passed = now - self._since
        if passed >= SECOND_NS:
            recorded = self._runtime.recorded
            self._rate = round((recorded - self._recorded) * SECOND_NS / passed, 1)
            self._since, self._recorded = now, recorded
        return self._rate


def _seconds(ns: int) -> float:
    return round(ns / SECOND_NS, 3)
