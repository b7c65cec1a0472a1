"""What goes on in the background of an engine: timers, schedules, effects, projections; and this worker's share of it.

Invariant: each loop looks at the store, which is the truth; a ring only tells it to look now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.commits import Commits, Nobody
from statewright.engine.definitions import Definitions
from statewright.engine.effects import Effects
from statewright.engine.followers import Follower, Projection
from statewright.engine.log import InstanceLog
from statewright.engine.messages import Messages
from statewright.engine.parking import Parking
from statewright.engine.recorder import Changes
from statewright.engine.runtime import Runtime
from statewright.engine.schedules import TASK as SCHEDULES
from statewright.engine.schedules import Schedules
from statewright.engine.shares import WHOLE, Part, Shares
from statewright.engine.signals import Gauge, Signals
from statewright.engine.tasks import end
from statewright.engine.timers import Timers

LOOK_NS = 60 * SECOND_NS
"""How long work that another process has left may stay unseen; what is done here is seen at once."""
EFFECTS_SHARE = 0.75
"""How much of the time to come to rest is for running effects; the rest is left to the projections."""

_LOG = logging.getLogger("statewright.engine")


class Background(Commits):
    """The loops of one engine. With a name for it as a `worker`, another in each run, they do its share of what several
    do on one store."""

    def __init__(
        self, log: InstanceLog, definitions: Definitions, runtime: Runtime, clock: Clock, worker: str | None
    ) -> None:
        recorder = log.instances
        self._log = log
        self._runtime = runtime
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._beginning: list[asyncio.Task[None]] = []
        """Those among them that begin something new in instances: timers and schedules."""
        self.shares: Shares | None = None
        if worker is not None:
            self.shares = Shares(recorder, runtime, clock, worker, self._share_changed)
            self.shares.want(SCHEDULES)
        self._part: Part = self.shares or WHOLE
        self.parking = Parking(log, runtime, clock)
        self.timers = Timers(recorder, runtime, self.parking, clock, self._part)
        self.schedules = Schedules(recorder, definitions, runtime, clock, self._part)
        messages = Messages(log, definitions, runtime, self.parking, clock)
        self.effects = Effects(recorder, runtime, messages, self.parking, clock, self._part)
        self.followers: list[Follower] = []
        self._watching: list[Callable[[Changes], None]] = []
        self._gauge = Gauge(log, definitions, runtime, self.timers, self.effects, clock)

    async def start(self, *, run_due: bool) -> None:
        """Begin; without `run_due` timers, schedules and effects are left to another engine."""
        self._runtime.commits = self
        if run_due:
            if self.shares is not None:
                await self.shares.balance()
                self._spawn(self.shares.run())
            else:
                await self._runtime.on_writer(self._log.instances.release_effects)
            self._beginning = [self._spawn(loop.run()) for loop in (self.timers, self.schedules)]
            self._spawn(self.effects.run())
        self._spawn(self._look_round())

    async def drain(self, timeout_s: float) -> None:
        """Come to rest (see `Engine.drain`). Among several workers, others take up at once what is given up here: first
        all that nothing runs in, the partitions of running effects once those have ended, and projections at last."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await end(*self._beginning)
        await self.effects.stop_claiming()
        await self._keep(self.effects.partitions)
        await self.effects.drain(timeout_s * EFFECTS_SHARE)
        await self._keep(())
        await self._runtime.finish()
        position = await self._runtime.on_reader(self._log.instances.max_notification_id) or 0
        left = max(0.0, deadline - loop.time())
        followers = [follower for follower in self.followers if follower.is_active]
        passed = await asyncio.gather(*(follower.has_passed(position, left) for follower in followers))
        for follower in (one for one, done in zip(followers, passed, strict=True) if not done):
            said = (follower.name, follower.position, position)
            _LOG.warning("projection '%s' stops at %d of %d; it goes on there with the next run", *said)

    async def _keep(self, partitions: Collection[int]) -> None:
        """Give all shares back but these partitions and the projections."""
        if self.shares is not None:
            await self.shares.keep(partitions, [follower.task for follower in self.followers])

    async def signals(self) -> Signals:
        """How much work waits. Raises what the store raises when it can't be read."""
        return await self._gauge.read([follower for follower in self.followers if follower.is_active])

    async def close(self) -> None:
        """End all loops; what was under way will be done again."""
        self._runtime.commits = Nobody()  # What is still answered while closing is seen by the next run.
        tasks, self._tasks = self._tasks, []
        await end(*tasks)
        await self.effects.close()
        if self.shares is not None:
            await self.shares.release()

    def attach(self, projection: Projection) -> None:
        """Feed every fact to `projection`, from its position on."""
        follower = Follower(projection, self._log, self._runtime, self._clock, self._part)
        if self.shares is not None:
            self.shares.want(follower.task)
        self.followers.append(follower)
        self._spawn(follower.run())

    def begun(self, changes: Changes) -> None:
        """See `Commits`."""
        if changes.effects_requested:
            self.effects.claim(changes)

    def failed(self, changes: Changes, *, is_certain: bool) -> None:
        """See `Commits`."""
        if changes.effects_requested:
            self.effects.unclaim(changes, is_certain=is_certain)

    def done(self, changes: Changes) -> None:
        """See `Commits`: tell those whom a commit concerns."""
        if changes.timers_set:
            self.timers.alarm.ring_before(min(row.due_at for row in changes.timers_set))
        if changes.effects_requested or changes.effects_ended or changes.instances_closed:
            self.effects.committed(changes)
        for follower in self.followers:
            follower.alarm.ring()
        for watching in self._watching:
            watching(changes)

    def watch(self, seen: Callable[[Changes], None]) -> Callable[[], None]:
        """See `Engine.watch`."""
        self._watching = [*self._watching, seen]

        def end() -> None:
            self._watching = [one for one in self._watching if one is not seen]

        return end

    def ring(self) -> None:
        """Have all of them look now."""
        for alarm in (self.timers.alarm, self.schedules.alarm, self.effects.alarm):
            alarm.ring()
        for follower in self.followers:
            follower.alarm.ring()

    async def _share_changed(self, gained: Collection[int]) -> None:
        """What the last worker of these partitions had begun is begun anew."""
        if gained:
            await self._runtime.on_writer(lambda: self._log.instances.release_effects(partitions=gained))
        self.ring()

    async def _look_round(self) -> None:
        """Now and then what another process has left, which rings no alarm here."""
        while True:
            await self._clock.sleep_until(self._clock.now() + LOOK_NS)
            self.ring()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.append(task)
        return task
