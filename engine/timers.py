"""Timers: the rows of table `timers` whose time has come are handed to the runtime, in due order.

The table is the truth; nothing is held in memory but when to look again. Firing deletes the row in the transaction that
records the event, so a timer fires once, whatever crashes. One that always fails is parked (`engine/parking.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from statewright.engine.alarm import Alarm
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import UnavailableError
from statewright.engine.outage import Outage
from statewright.engine.parking import ATTEMPTS_MAX, Parking, is_passing
from statewright.engine.recorder import InstanceRecorder, TimerRow
from statewright.engine.requests import TimerDue
from statewright.engine.runtime import Runtime
from statewright.engine.shares import WHOLE, Part

PAGE = 1_000
"""How many due timers are handed over at a time."""
HOLD_NS = 30 * SECOND_NS
"""How long a timer whose instance can't be stepped now is left alone."""
HELD_MAX = 10_000
"""How many are left alone at once; while they are, none fires."""

_EVER = 2**63 - 1

_LOG = logging.getLogger("statewright.engine")


class Timers:
    """The loop that fires timers."""

    def __init__(
        self,
        recorder: InstanceRecorder,
        runtime: Runtime,
        parking: Parking,
        clock: Clock,
        part: Part = WHOLE,
    ) -> None:
        self._recorder = recorder
        self._runtime = runtime
        self._parking = parking
        self._clock = clock
        self._part = part
        self._held: dict[TimerRow, int] = {}
        self._doubted: set[TimerRow] = set()
        self._failures: dict[TimerRow, int] = {}
        self._outage = Outage("timers can't be read", clock)
        self.alarm = Alarm(clock)

    async def run(self) -> None:
        """Fire due timers for ever; ends by cancellation."""
        while True:
            try:
                fired = await self._fire_due()
                next_at = None if fired else await self._next_look()
                self._outage.over()
                if not fired:
                    await self.alarm.wait(next_at)
            except Exception as error:
                if isinstance(error, UnavailableError) and self._runtime.is_closing:
                    return
                self._outage.failed(error)
                await self._outage.pause()

    async def _fire_due(self) -> bool:
        """Fire one page of due timers; whether there were any."""
        now = self._clock.now()
        self._held = {row: until for row, until in self._held.items() if until > now}
        if len(self._held) >= HELD_MAX:
            return False
        rows = await self._due(now, PAGE + len(self._held))
        due = [row for row in rows if row not in self._held]
        fired = [
            self._runtime.submit(TimerDue(row.instance_id, row.timer_id, row.due_at), bounded=False) for row in due
        ]
        outcomes = await asyncio.gather(*fired, return_exceptions=True)
        self._doubted, doubted = set(), self._doubted
        for row, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Exception):
                await self._failed(row, outcome)
            elif outcome is None:
                # The instance knows of no such timer. Either the row is gone since it was read, or another process has
                # written since the instance was: so it is read again, and the row doubted when it is still there.
                self._runtime.residents.evict(row.instance_id)
                if row in doubted:
                    await self._failed(row, LookupError("its facts don't say that it is set"))
                else:
                    self._doubted.add(row)
            else:
                self._failures.pop(row, None)
        return bool(due)

    async def late_ns(self) -> int:
        """How long the earliest timer that is due waits; one that is held is not counted."""
        now = self._clock.now()
        rows = await self._due(now, 1 + len(self._held))
        return next((now - row.due_at for row in rows if row not in self._held), 0)

    async def _failed(self, row: TimerRow, error: Exception) -> None:
        """Hold it for a while; park it if it has always failed. The count is of this run."""
        ids = {"instance": row.instance_id, "timer": row.timer_id}
        _LOG.error("timer '%s' of instance '%s' can't fire now: %s", row.timer_id, row.instance_id, error, extra=ids)
        failures = self._failures.get(row, 0)
        if not is_passing(error):
            failures += 1
            self._failures[row] = failures
        if failures >= ATTEMPTS_MAX:
            await self._parking.park_timer(row, error)
            del self._failures[row]
            return
        self._held[row] = self._clock.now() + HOLD_NS

    async def _next_look(self) -> int | None:
        """When the next timer is due, or a held one is to be tried again."""
        if self._held:  # They are due: they must not hide those that are due next.
            rows = await self._due(_EVER, len(self._held) + 1)
            next_at = min([*self._held.values(), *(row.due_at for row in rows if row not in self._held)], default=None)
        else:
            partitions = self._part.partitions()
            next_at = await self._runtime.on_reader(lambda: self._recorder.next_timer_at(partitions=partitions))
        return self._part.look_by(next_at, self._clock.now())

    async def _due(self, until: int, limit: int) -> Sequence[TimerRow]:
        partitions = self._part.partitions()
        return await self._runtime.on_reader(lambda: self._recorder.due_timers(until, limit, partitions=partitions))
