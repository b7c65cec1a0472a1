"""Time as a port. All times are integer nanoseconds since the epoch, UTC."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

SECOND_NS = 1_000_000_000
_SLEEP_MAX_S = 1.0
"""The longest single sleep. Sleeping goes by another clock than the wall's, one that stands still while the machine is
suspended: so a wall clock that was set, and a machine that has woken up, are noticed within it."""


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        ...

    async def sleep_until(self, due_at: int) -> None:
        """Return once `now() >= due_at`, or earlier (callers look again)."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        return time.time_ns()

    async def sleep_until(self, due_at: int) -> None:
        await asyncio.sleep(min(max(due_at - self.now(), 0) / SECOND_NS, _SLEEP_MAX_S))
        while (left := due_at - self.now()) > 0:  # noqa: ASYNC110 (there is nobody to set an event)
            await asyncio.sleep(min(left / SECOND_NS, _SLEEP_MAX_S))


class ManualClock:
    """A clock that moves only when told: for tests and simulations."""

    def __init__(self, now: int = 1_700_000_000 * SECOND_NS) -> None:
        self._now = now
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> int:
        return self._now

    @property
    def waiting(self) -> list[int]:
        """The times that somebody waits for, in order."""
        return sorted(due_at for due_at, _, sleeper in self._sleepers if not sleeper.done())

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds` (back, if they are negative) and wake whoever was waiting for a time passed."""
        self._now += round(seconds * SECOND_NS)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep_until(self, due_at: int) -> None:
        if due_at <= self._now:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (due_at, next(self._order), sleeper))
        await sleeper
