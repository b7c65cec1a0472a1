"""What this worker does of what is done once: which partitions of the instances, and which single tasks.

Workers on one store share its background work (timers, effects, projections) by leases: rows that are renewed every
second and are anybody's three seconds after the last time. Each lives under a lease of its own, so that all know how
many they are, and takes its part of the partitions, no more; who has too many gives some back.

Invariants: a lease spares work and is no lock. What two workers do at once, because one was taken for dead, is kept
apart by the keys of the store: (instance, sequence), the inbox, an effect's lease epoch, a projection's position.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from zlib import crc32

from statewright.engine.alarm import Alarm
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.outage import Outage
from statewright.engine.recorder import InstanceRecorder, Lease
from statewright.engine.runtime import Runtime

TTL_NS = 3 * SECOND_NS
"""How long a lease is respected after it was last renewed: the work of a dead worker stays undone so long."""
RENEW_NS = SECOND_NS
LOOK_NS = SECOND_NS // 5
"""How often to look for timers, effects and facts that came about elsewhere."""

_PARTITION = "partition:"
_WORKER = "worker:"
_TASK = "task:"
_LOG = logging.getLogger("statewright.engine")


class Part:
    """Which part of the background work is done here, and how often to look for what others have caused. This one: all
    of it, and nobody else causes any."""

    def partitions(self) -> Collection[int] | None:
        """Those whose timers and effects are looked after here; None for all."""
        return None

    def does(self, task: str) -> bool:
        """Whether a single task is done here."""
        return True

    def look_by(self, next_at: int | None, now: int) -> int | None:
        """When to look again, if the next that is known of is due at `next_at` (None: nothing is)."""
        return next_at


WHOLE = Part()


class Shares(Part):
    """One worker's part. `on_change(gained)` is called when it changes, with the partitions that have come."""

    def __init__(
        self,
        recorder: InstanceRecorder,
        runtime: Runtime,
        clock: Clock,
        worker: str,
        on_change: Callable[[Collection[int]], Awaitable[None]],
    ) -> None:
        self._recorder = recorder
        self._runtime = runtime
        self._clock = clock
        self._on_change = on_change
        self._count = recorder.partitions
        self._tasks: set[str] = set()
        self._held: dict[str, Lease] = {}
        self._kept: frozenset[str] | None = None
        """Once this worker is about to end, the names of what it still keeps."""
        self._balancing = asyncio.Lock()
        self._owners: Mapping[int, str] = {}
        self._alarm = Alarm(clock)
        self._outage = Outage("leases can't be renewed", clock)
        self._changed = asyncio.Event()
        self.worker = worker
        self._partitions: frozenset[int] = frozenset()

    def partitions(self) -> Collection[int] | None:
        return self._partitions

    def look_by(self, next_at: int | None, now: int) -> int | None:
        """Another worker, or a command, may have set a timer or asked for an effect: look now and then."""
        return min(next_at, now + LOOK_NS) if next_at is not None else now + LOOK_NS

    def owner_of(self, partition: int) -> str:
        """The worker that looks after a partition, as far as is known; "" if nobody does."""
        return self._owners.get(partition, "")

    @property
    def owners(self) -> Mapping[int, str]:
        """By partition, the worker that looks after it."""
        return self._owners

    def want(self, task: str) -> None:
        """Do the task of this name here, if nobody else does."""
        self._tasks.add(f"{_TASK}{task}")
        self._alarm.ring()

    def does(self, task: str) -> bool:
        """Whether the task is this worker's."""
        return f"{_TASK}{task}" in self._held

    async def changed(self) -> None:
        """Return at the next change of what is done here."""
        await self._changed.wait()

    async def balance(self) -> None:
        """Renew what is held, take what is due to this worker, give back what is too much."""
        async with self._balancing:
            await self._settle(await self._runtime.on_writer(self._exchange))

    async def keep(self, partitions: Collection[int], tasks: Collection[str]) -> None:
        """Before the end: take on nothing more, and give back at once what is not among these, as far as the store can
        be written."""
        names = (*(f"{_PARTITION}{number}" for number in partitions), *(f"{_TASK}{task}" for task in tasks))
        self._kept = frozenset(names)
        try:
            await self.balance()
        except Exception as error:
            _LOG.warning("leases can't be given back now: %s", error)

    async def run(self) -> None:
        """Balance for ever; ends by cancellation."""
        while True:
            renewed_at = self._clock.now()
            try:
                await self.balance()
                self._outage.over()
            except Exception as error:
                self._outage.failed(error)
                if self._clock.now() >= max((lease.expires_at for lease in self._held.values()), default=0):
                    await self._settle({})
            await self._alarm.wait(renewed_at + RENEW_NS)

    async def release(self) -> None:
        """Give everything back, so that others need not wait for the leases to expire."""
        names = list(self._held)
        await self._settle({})
        try:
            await self._runtime.on_writer(self._recorder.release_leases, self.worker, names)
        except Exception as error:
            _LOG.warning("leases can't be given back, they will expire: %s", error)

    def _exchange(self) -> dict[str, Lease]:
        """What is held after talking to the store: on the writing thread."""
        if self._kept is not None:
            return self._leave(self._kept)
        recorder, worker, now = self._recorder, self.worker, self._clock.now()
        own = f"{_WORKER}{worker}"
        held = {lease.name: lease for lease in recorder.renew_leases(worker, list(self._held), now, TTL_NS)}
        if own not in held:
            held |= {lease.name: lease for lease in recorder.acquire_leases(worker, [own], now, TTL_NS)}
        leases = {lease.name: lease for lease in recorder.select_leases()}
        # The store's clock tells who lives: it was `expires_at - TTL_NS` when our own lease was renewed.
        store_now = held[own].expires_at - TTL_NS if own in held else now
        living = {name: lease for name, lease in leases.items() if lease.owner and lease.expires_at > store_now}
        workers = sorted(name for name in living if name.startswith(_WORKER))
        share = -(-self._count // max(len(workers), 1))
        mine = [name for name in held if name.startswith(_PARTITION)]
        if surplus := sorted(mine)[share:]:
            recorder.release_leases(worker, surplus)
            for name in surplus:
                del held[name]
        free = [name for name in self._partition_names() if name not in living and name not in held]
        wanted = [*free[: max(share - len(mine), 0)], *(task for task in self._tasks if task not in living)]
        if wanted:
            held |= {lease.name: lease for lease in recorder.acquire_leases(worker, wanted, now, TTL_NS)}
        self._owners = {
            int(name.removeprefix(_PARTITION)): lease.owner
            for name, lease in (living | held).items()
            if name.startswith(_PARTITION)
        }
        return held

    def _leave(self, kept: Collection[str]) -> dict[str, Lease]:
        """What is kept. The worker's own lease goes, too, so that the others reckon without it."""
        self._recorder.release_leases(self.worker, [name for name in self._held if name not in kept])
        names = [name for name in self._held if name in kept]
        return {
            lease.name: lease for lease in self._recorder.renew_leases(self.worker, names, self._clock.now(), TTL_NS)
        }

    def _partition_names(self) -> list[str]:
        """All of them, from a place of its own on, so that workers that start together do not want the same."""
        first = crc32(self.worker.encode()) % self._count
        return [f"{_PARTITION}{(first + n) % self._count}" for n in range(self._count)]

    async def _settle(self, held: dict[str, Lease]) -> None:
        before, self._held = self._held, held
        partitions = frozenset(int(name.removeprefix(_PARTITION)) for name in held if name.startswith(_PARTITION))
        gained = partitions - self._partitions
        self._partitions = partitions
        if gained or before.keys() != held.keys():
            self._changed.set()
            self._changed = asyncio.Event()
            await self._on_change(gained)
