"""Followers of the log: asynchronous projections, each at its own position."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from statewright.engine.alarm import Alarm
from statewright.engine.clock import Clock
from statewright.engine.log import InstanceLog, LoggedFact
from statewright.engine.outage import Outage
from statewright.engine.runtime import Runtime
from statewright.engine.shares import WHOLE, Part

PAGE = 500
GATHERING_S = 0.02
"""For how long facts gather before the next page is taken in, unless somebody waits for it. A page costs a transaction
or a round trip however few there are in it: with one sender, whose events come one by one, that was more than half of
the engine's CPU."""
PASSING_TIMEOUT_S = 3.0
"""How long `has_passed` waits: less than a request over the bus does."""


class Projection(Protocol):
    """A read model, or anything else that follows every fact."""

    @property
    def name(self) -> str:
        """Unique among the projections of a store; its position is tracked under it."""
        ...

    async def position(self) -> int:
        """The log position up to which everything has been processed (0: nothing)."""
        ...

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        """Take in `facts`, in log order, and return once that and the new position are durable together. May be
        called again with the same facts after a failure."""
        ...


class Follower:
    """Feeds one projection."""

    def __init__(
        self, projection: Projection, log: InstanceLog, runtime: Runtime, clock: Clock, part: Part = WHOLE
    ) -> None:
        self._projection = projection
        self._part = part
        self._log = log
        self._runtime = runtime
        self._clock = clock
        self._position: int | None = None
        self._moved = asyncio.Event()
        self._waited_for = asyncio.Event()
        self._outage = Outage(f"projection '{projection.name}' can't go on", clock)
        self.alarm = Alarm(clock)

    @property
    def name(self) -> str:
        return self._projection.name

    @property
    def is_active(self) -> bool:
        """Whether following is done here, and not by another worker."""
        return self._part.does(self.task)

    @property
    def position(self) -> int:
        """Up to where everything is processed, as far as is known here (0 until it has been read)."""
        return self._position or 0

    async def has_passed(self, position: int, timeout_s: float = PASSING_TIMEOUT_S) -> bool:
        """Whether everything up to `position` is processed; waits for it at most `timeout_s`, but not when
        another worker is the one that follows: what the projection keeps tells how far that one has come."""
        if not self.is_active:
            return await self._projection.position() >= position
        self.alarm.ring()
        self._waited_for.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self._position is None or self._position < position:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _passed(self, position: int) -> None:
        self._position = position
        self._moved.set()

    async def run(self) -> None:
        """Follow for ever; ends by cancellation."""
        while True:
            try:
                await self._follow()
            except Exception as error:
                self._outage.failed(error)
                await self._outage.pause()

    async def _follow(self) -> None:
        """Follow for as long as that is done here."""
        task = self.task
        while not self._part.does(task):
            self._outage.left()
            await self.alarm.wait(None)
        position = await self._projection.position()
        self._passed(position)
        while self._part.does(task):
            facts = await self._runtime.on_reader(self._log.following, position, PAGE)
            if facts:
                await self._projection.process(facts)
                position = facts[-1].position
                self._passed(position)
            self._outage.over()
            if len(facts) < PAGE:
                await self._gather()
                await self.alarm.wait(self._part.look_by(None, self._clock.now()))

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(GATHERING_S):
                await self._waited_for.wait()
        except TimeoutError:
            return
        self._waited_for.clear()

    @property
    def task(self) -> str:
        """What following is called among the tasks that one worker does."""
        return f"projection:{self._projection.name}"
