"""Instances held in memory: a bounded cache of what the log says, never more than that.

Invariants: a resident is as of its last *committed* fact. `seen` maps (source, event id) to (sequence, digest) of the
newest identities that it has recorded since it is here; when `complete` is false there are others that only the store
knows. What many instances have in common (names, configurations, nothing at all) is held once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from sys import intern
from typing import Any

from msgspec.structs import replace

from statewright.engine.definitions import Definitions
from statewright.engine.events import PendingTimer
from statewright.engine.instance import Instance
from statewright.engine.log import InstanceLog
from statewright.statecharts.facts import Snapshot
from statewright.statecharts.machine import ChartMachine

SEEN_MAX = 8
"""How many identities of one instance are held in memory: a retry comes soon. An older duplicate is found by the
inbox's key."""
RESIDENTS_MAX = 10_000

Seen = dict[tuple[str, str], tuple[int, bytes]]
_NOTHING: Mapping[str, Any] = {}


class Resident:
    """One instance in memory, with its compiled machine."""

    __slots__ = ("complete", "instance", "machine", "seen", "snapshot")

    def __init__(
        self, instance: Instance, snapshot: Snapshot, machine: ChartMachine, seen: Seen, *, complete: bool
    ) -> None:
        self.instance = instance
        self.snapshot = snapshot
        self.machine = machine
        self.seen = seen
        self.complete = complete

    def advance(self, instance: Instance, snapshot: Snapshot, machine: ChartMachine, fresh: Seen) -> None:
        """Take in what was committed."""
        self.instance = instance
        self.snapshot = snapshot
        self.machine = machine
        self.seen.update(fresh)
        self.trim()

    def trim(self) -> None:
        """Keep no more identities than it may."""
        while len(self.seen) > SEEN_MAX:
            del self.seen[next(iter(self.seen))]
            self.complete = False


class Residents:
    """The cache, least recently used first."""

    def __init__(self, limit: int = RESIDENTS_MAX) -> None:
        """With a `limit` of 0 every request reads its instance from the log."""
        self._limit = limit
        self._by_id: OrderedDict[str, Resident] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._by_id

    def get(self, instance_id: str) -> Resident | None:
        resident = self._by_id.get(instance_id)
        if resident is not None:
            self._by_id.move_to_end(instance_id)
        return resident

    def put(self, resident: Resident) -> None:
        self._by_id[resident.instance.id] = resident
        self._by_id.move_to_end(resident.instance.id)
        while len(self._by_id) > self._limit:
            self._by_id.popitem(last=False)

    def evict(self, instance_id: str) -> None:
        self._by_id.pop(instance_id, None)


def load_resident(log: InstanceLog, definitions: Definitions, instance_id: str) -> Resident | None:
    """Rebuild one instance from its snapshot and facts; None if it doesn't exist. Runs no user code.

    Raises `UnusableError` when the definition it is pinned to can't be used here, `PrunedError`.
    """
    instance = log.load(instance_id)
    if instance is None:
        return None
    chart = definitions.pinned(instance.definition, instance.version, instance.digest)
    machine = chart.machine
    invoked = {invokeid: child.key for invokeid, child in instance.children.items()} if instance.children else _NOTHING
    history = instance.history or _NOTHING
    snapshot = machine.restore(
        instance.configuration, instance.context, history, instance.serial, instance.bound, invoked
    )
    shared = replace(
        instance,
        definition=chart.name,
        version=chart.version,
        digest=chart.digest,
        configuration=machine.names(snapshot.configuration),
        context=snapshot.context,
        history=snapshot.history,
        timers={intern(key): _shared(timer) for key, timer in instance.timers.items()} or _NOTHING,
        children=instance.children or _NOTHING,
    )
    return Resident(shared, snapshot, machine, {}, complete=False)


def _shared(timer: PendingTimer) -> PendingTimer:
    return replace(timer, timer_id=intern(timer.timer_id), event=intern(timer.event))
