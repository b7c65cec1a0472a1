"""Timers: the rows of table `timers` whose time has come are handed to the runtime, in due order.

The table is the truth; nothing is held in memory but when to look again. Firing deletes the row in the transaction that
records the event, so a timer fires once, whatever crashes.
"""

from __future__ import annotations

import asyncio
import logging

from statewright.engine.alarm import Alarm
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import UnavailableError
from statewright.engine.recorder import InstanceRecorder, TimerRow
from statewright.engine.requests import TimerDue
from statewright.engine.runtime import Runtime

PAGE = 1_000
"""How many due timers are handed over at a time."""
HOLD_NS = 30 * SECOND_NS
"""How long a timer whose instance can't be stepped now is left alone."""
HELD_MAX = 10_000
"""How many are left alone at once; while they are, none fires."""

_LOG = logging.getLogger("statewright.engine")


class Timers:
    """The loop that fires timers."""

    def __init__(self, recorder: InstanceRecorder, runtime: Runtime, clock: Clock) -> None:
        self._recorder = recorder
        self._runtime = runtime
        self._clock = clock
        self._held: dict[tuple[str, str], int] = {}
        self.alarm = Alarm(clock)

    async def run(self) -> None:
        """Fire due timers for ever; ends by cancellation."""
        while True:
            try:
                if not await self._fire_due():
                    await self.alarm.wait(await self._next_look())
            except UnavailableError:
                return  # The engine is closing.
            except Exception:
                _LOG.exception("timers can't be read; looking again in a second")
                await self._clock.sleep_until(self._clock.now() + SECOND_NS)

    async def _fire_due(self) -> bool:
        """Fire one page of due timers; whether there were any."""
        now = self._clock.now()
        self._held = {key: until for key, until in self._held.items() if until > now}
        if len(self._held) >= HELD_MAX:
            return False
        rows = await self._runtime.on_reader(self._recorder.due_timers, now, PAGE + len(self._held))
        due = [row for row in rows if (row.instance_id, row.timer_id) not in self._held]
        fired = [
            self._runtime.submit(TimerDue(row.instance_id, row.timer_id, row.due_at), bounded=False) for row in due
        ]
        outcomes = await asyncio.gather(*fired, return_exceptions=True)
        for row, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._hold(row, outcome)
        return bool(due)

    async def late_ns(self) -> int:
        """How long the earliest timer that is due waits; one that is held is not counted."""
        now = self._clock.now()
        rows = await self._runtime.on_reader(self._recorder.due_timers, now, 1 + len(self._held))
        return next((now - row.due_at for row in rows if (row.instance_id, row.timer_id) not in self._held), 0)

    def _hold(self, row: TimerRow, error: Exception) -> None:
        ids = {"instance": row.instance_id, "timer": row.timer_id}
        _LOG.error("timer '%s' of instance '%s' can't fire now: %s", row.timer_id, row.instance_id, error, extra=ids)
        self._held[(row.instance_id, row.timer_id)] = self._clock.now() + HOLD_NS

    async def _next_look(self) -> int | None:
        """When the next timer is due, or a held one is to be tried again."""
        next_at = await self._runtime.on_reader(self._recorder.next_timer_at)
        if not self._held:
            return next_at
        held_until = min(self._held.values())
        if next_at is None or next_at <= self._clock.now():
            return held_until
        return min(next_at, held_until)
