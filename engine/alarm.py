"""Waiting for a time or for a call, whichever comes first."""

from __future__ import annotations

import asyncio

from statewright.engine.clock import Clock


class Alarm:
    """One waiter, many callers. A `ring` while nobody waits makes the next wait return at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self.due_at: int | None = None
        """What is being waited for (None: only a ring ends the wait)."""

    def ring(self) -> None:
        self._rung.set()

    def ring_before(self, due_at: int) -> None:
        """Ring if somebody waits for a later time than `due_at`, or for none."""
        if self.due_at is None or due_at < self.due_at:
            self._rung.set()

    async def wait(self, due_at: int | None) -> None:
        """Return when rung, or once the clock may have reached `due_at` (callers look again)."""
        self.due_at = due_at
        try:
            if due_at is None:
                await self._rung.wait()
            elif not self._rung.is_set():
                await self._race(due_at)
        finally:
            self._rung.clear()
            self.due_at = None

    async def _race(self, due_at: int) -> None:
        rung = asyncio.ensure_future(self._rung.wait())
        slept = asyncio.ensure_future(self._clock.sleep_until(due_at))
        try:
            await asyncio.wait((rung, slept), return_when=asyncio.FIRST_COMPLETED)
        finally:
            rung.cancel()
            slept.cancel()
            # Not awaited one by one: that would take a cancellation of ours, coming just now, for theirs.
            await asyncio.wait((rung, slept))
