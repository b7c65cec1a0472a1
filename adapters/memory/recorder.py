"""The `eventsourcing` library's recorder in memory, which also keeps inbox, instances, timers and effects.

Invariants: what writes checks everything before it changes anything, so that a transaction is there as a whole or not
at all; what SQLite refuses is refused here too. Rows are values: a moment is kept by copying the tables. Made for
tests: some queries walk over all rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import islice
from operator import attrgetter
from threading import local
from typing import Any, Self

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.popo import POPOAggregateRecorder, POPOProcessRecorder

from statewright.adapters.memory import leases as lease_table
from statewright.adapters.memory import upkeep
from statewright.adapters.memory.checks import check
from statewright.adapters.memory.rows import backlogs, copied, fits, located, progress
from statewright.engine.recorder import (
    PARTITIONS_DEFAULT,
    Backlog,
    Changes,
    DefinitionRow,
    EffectRow,
    EndedFilter,
    InboxRow,
    InstanceFilter,
    InstanceRecorder,
    InstanceRow,
    Lease,
    ParkedRow,
    ScheduleRow,
    TimerRow,
)
from statewright.engine.relatives import LASTING
from statewright.engine.steps import StepRow, after

OPEN = frozenset({"pending", "running"})
"""The states of effects still to be performed."""
_due_at = attrgetter("due_at")


class MemoryInstanceRecorder(POPOProcessRecorder, InstanceRecorder):
    """`InstanceRecorder` in memory, for as many threads as there are."""

    def __init__(self, *, partitions: int = PARTITIONS_DEFAULT) -> None:
        super().__init__()
        self.snapshots: POPOAggregateRecorder = POPOAggregateRecorder()
        """Pruned with the facts."""
        self._partitions = partitions
        self._held = local()
        self._inbox: dict[str, dict[tuple[str, str], InboxRow]] = {}
        self._instances: dict[str, InstanceRow] = {}
        self._timers: dict[tuple[str, str], TimerRow] = {}
        self._effects: dict[str, EffectRow] = {}
        self._effects_of: dict[str, list[str]] = {}
        self._open: dict[str, int] = {}
        """The effects still to be performed, with their numbers in the order of request."""
        self._numbers: dict[str, int] = {}
        """Those of all effects, ended ones too."""
        self._requested = 0
        self._steps: dict[str, dict[str, StepRow]] = {}
        self._definitions: dict[tuple[str, str], DefinitionRow] = {}
        self._parked: dict[str, ParkedRow] = {}
        self._schedules: dict[str, ScheduleRow] = {}
        self._leases: dict[str, Lease] = {}

    @contextmanager
    def consistent(self) -> Iterator[None]:
        with self._database_lock:
            moment = copy(self)
            for name, value in vars(self).items():
                if isinstance(value, dict | list):
                    setattr(moment, name, copied(value))
        before, self._held.moment = self._seen, moment
        try:
            yield
        finally:
            self._held.moment = before

    @property
    def _seen(self) -> Self:
        """What this thread reads: the recorder as it is, or as of the moment that `consistent` holds."""
        seen: Self = getattr(self._held, "moment", self)
        return seen

    # Facts
    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        changes: Changes | None = None,
        leases: Sequence[Lease] = (),
        **kwargs: Any,
    ) -> Sequence[int] | None:
        with self._database_lock:
            lease_table.require(self._leases, leases)
            if changes is not None:
                self._check(changes)
            positions = super().insert_events(stored_events, **kwargs)
            if changes is not None:
                self._apply(changes)
            return positions

    def _check(self, changes: Changes) -> None:
        check(changes, self._inbox, self._effects)

    def _apply(self, changes: Changes) -> None:
        for inbox in changes.inbox:
            self._inbox.setdefault(inbox.instance_id, {})[inbox.source, inbox.event_id] = inbox
        for instance in changes.instances:
            self._instances[instance.id] = instance
        for key in changes.timers_cleared:
            self._timers.pop(key, None)
        for timer in changes.timers_set:
            self._timers[timer.instance_id, timer.timer_id] = timer
        for instance_id in changes.instances_closed:
            self._close(instance_id)
        for effect in changes.effects_requested:
            self._effects_of.setdefault(effect.instance_id, []).append(effect.effect_id)
            self._requested += 1
            self._numbers[effect.effect_id] = self._requested
            self._put_effect(effect)
        for state, error, effect_id in changes.effects_ended:
            self._end(effect_id, state, error)
        for step in changes.steps:
            known = self._steps.setdefault(step.instance_id, {})
            known[step.step] = after(known.get(step.step), step)

    def _close(self, instance_id: str) -> None:
        for key in [key for key in self._timers if key[0] == instance_id]:
            del self._timers[key]
        for effect_id in self._effects_of.get(instance_id, ()):
            if effect_id in self._open and self._effects[effect_id].kind not in LASTING:
                self._end(effect_id, "cancelled")

    def _end(self, effect_id: str, state: str, error: str | None = None) -> None:
        row = self._effects.get(effect_id)
        if row is not None and row.state not in upkeep.ENDS:
            self._put_effect(row._replace(state=state, error=row.error if error is None else error))

    def _put_effect(self, row: EffectRow) -> None:
        """Keep a row of an effect that has its number."""
        self._effects[row.effect_id] = row
        if row.state in OPEN:
            self._open[row.effect_id] = self._numbers[row.effect_id]
        else:
            self._open.pop(row.effect_id, None)

    def select_events(self, *args: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        with self._database_lock:
            return super(MemoryInstanceRecorder, self._seen).select_events(*args, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = 0 if start is None else start if inclusive_of_start else start + 1
        with self._database_lock:
            events = self._seen._stored_events
            last = len(events) if stop is None else min(stop, len(events))
            found = (
                located(position, event)
                for position in range(max(first, 1), last + 1)
                if (event := events[position - 1]) is not upkeep.GONE and (not topics or event.topic in topics)
            )
            return list(islice(found, limit))

    def max_notification_id(self) -> int | None:
        with self._database_lock:
            events = self._seen._stored_events
            return next(
                (position for position in range(len(events), 0, -1) if events[position - 1] is not upkeep.GONE), None
            )

    # The inbox
    def select_inbox(self, instance_id: str, limit: int) -> Sequence[InboxRow]:
        with self._database_lock:
            rows = sorted(self._seen._inbox.get(instance_id, {}).values(), key=attrgetter("sequence"), reverse=True)
            return rows[:limit]

    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None:
        with self._database_lock:
            return self._seen._inbox.get(instance_id, {}).get((source, event_id))

    # Instances
    def select_instance(self, instance_id: str) -> InstanceRow | None:
        with self._database_lock:
            return self._seen._instances.get(instance_id)

    def select_instances(self, where: InstanceFilter) -> Sequence[InstanceRow]:
        with self._database_lock:
            found = [row for row in self._seen._instances.values() if fits(row, where)]
        return sorted(found, key=attrgetter("id"))[: where.limit]

    # Timers
    def due_timers(self, now: int, limit: int, *, partitions: Collection[int] | None = None) -> Sequence[TimerRow]:
        with self._database_lock:
            due = [row for row in self._seen._timers_within(partitions) if row.due_at <= now]
        return sorted(due, key=_due_at)[:limit]

    def next_timer_at(self, *, partitions: Collection[int] | None = None) -> int | None:
        with self._database_lock:
            return min(map(_due_at, self._seen._timers_within(partitions)), default=None)

    def select_timers(self, instance_id: str) -> Sequence[TimerRow]:
        with self._database_lock:
            return sorted((row for key, row in self._seen._timers.items() if key[0] == instance_id), key=_due_at)

    def _timers_within(self, partitions: Collection[int] | None) -> Iterable[TimerRow]:
        rows = self._timers.values()
        return rows if partitions is None else (row for row in rows if row.partition in partitions)

    # Effects
    def claim_effects(
        self,
        now: int,
        limit: int,
        *,
        names: Sequence[str],
        kinds: Sequence[str],
        lease_ns: int,
        partitions: Collection[int] | None = None,
    ) -> Sequence[EffectRow]:
        with self._database_lock:
            waiting = self._waiting(names, kinds, partitions)
            due = sorted((row for row in waiting if row.due_at <= now), key=_due_at)[:limit]
            due.sort(key=lambda row: self._open[row.effect_id])
            claimed = [
                row._replace(
                    state="running",
                    attempt=row.attempt + 1,
                    lease_epoch=row.lease_epoch + 1,
                    due_at=now + lease_ns,
                )
                for row in due
            ]
            self._effects.update((row.effect_id, row) for row in claimed)
            return claimed

    def _waiting(
        self, names: Sequence[str], kinds: Sequence[str], partitions: Collection[int] | None
    ) -> Iterable[EffectRow]:
        """The open effects that are asked for, in the order of request."""
        for effect_id in sorted(self._open, key=self._open.__getitem__):
            row = self._effects[effect_id]
            if partitions is not None and row.partition not in partitions:
                continue
            if row.name in names if row.kind == "perform" else row.kind in kinds:
                yield row

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str, *, counted: bool = True) -> bool:
        with self._database_lock:
            row = self._effects.get(effect_id)
            if row is None or row.state != "running" or row.lease_epoch != lease_epoch:
                return False
            attempt = row.attempt if counted else row.attempt - 1
            self._effects[effect_id] = row._replace(state="pending", due_at=due_at, error=error, attempt=attempt)
            return True

    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        with self._database_lock:
            row = self._effects.get(effect_id)
            if row is None or row.state != "running" or row.lease_epoch != lease_epoch:
                return False
            self._effects[effect_id] = row._replace(due_at=due_at, details=details or row.details)
            return True

    def release_effects(self, *, partitions: Collection[int] | None = None) -> int:
        with self._database_lock:
            open_ = [self._effects[effect_id] for effect_id in self._open]
            running = [
                row for row in open_ if row.state == "running" and (partitions is None or row.partition in partitions)
            ]
            self._effects.update((row.effect_id, row._replace(state="pending", due_at=0)) for row in running)
            return len(running)

    def next_effect_at(
        self, *, names: Sequence[str], kinds: Sequence[str], partitions: Collection[int] | None = None
    ) -> int | None:
        with self._database_lock:
            return min(map(_due_at, self._seen._waiting(names, kinds, partitions)), default=None)

    def select_effects(self, instance_id: str) -> Sequence[EffectRow]:
        with self._database_lock:
            seen = self._seen
            return [seen._effects[effect_id] for effect_id in seen._effects_of.get(instance_id, ())]

    # Steps
    def select_steps(self, instance_id: str, steps: Collection[str] | None = None) -> Sequence[StepRow]:
        with self._database_lock:
            rows = self._seen._steps.get(instance_id, {}).values()
            return sorted(row for row in rows if steps is None or row.step in steps)

    # Definitions
    def insert_definition(self, row: DefinitionRow) -> None:
        with self._database_lock:
            known = self._definitions.setdefault((row.name, row.version), row)
        if known.digest != row.digest:
            raise IntegrityError(
                f"expected definition '{row.name}' version '{row.version}' with the digest it is stored with, "
                f"{known.digest}, got {row.digest}"
            )

    def select_definition(self, name: str, version: str) -> DefinitionRow | None:
        with self._database_lock:
            return self._seen._definitions.get((name, version))

    def select_definitions(self) -> Sequence[DefinitionRow]:
        with self._database_lock:
            return list(self._seen._definitions.values())

    # What is parked
    def park(self, row: ParkedRow, *, timer: tuple[str, str] | None = None, effect_id: str | None = None) -> None:
        with self._database_lock:
            self._parked.setdefault(row.parked_id, row)
            if timer is not None:
                self._timers.pop(timer, None)
            if effect_id is not None and effect_id in self._open:
                effect = self._effects[effect_id]
                self._put_effect(effect._replace(state="parked", error=row.reason))

    def select_parked(self, limit: int) -> Sequence[ParkedRow]:
        with self._database_lock:
            return list(islice(self._seen._parked.values(), limit))

    def find_parked(self, parked_id: str) -> ParkedRow | None:
        with self._database_lock:
            return self._seen._parked.get(parked_id)

    def unpark(
        self,
        parked_id: str,
        *,
        timer: TimerRow | None = None,
        effect_id: str | None = None,
        effect_state: str = "pending",
    ) -> bool:
        with self._database_lock:
            if self._parked.pop(parked_id, None) is None:
                return False
            if timer is not None:
                self._timers.setdefault((timer.instance_id, timer.timer_id), timer)
            effect = self._effects.get(effect_id) if effect_id is not None else None
            if effect is not None and effect.state == "parked":
                self._put_effect(upkeep.unparked(effect, effect_state, self._instances.get(effect.instance_id)))
            return True

    # Schedules
    def insert_schedule(self, row: ScheduleRow) -> None:
        with self._database_lock:
            if row.id in self._schedules:
                raise IntegrityError(f"expected a schedule that is not there yet, got '{row.id}'")
            self._schedules[row.id] = row

    def select_schedule(self, schedule_id: str) -> ScheduleRow | None:
        with self._database_lock:
            return self._seen._schedules.get(schedule_id)

    def select_schedules(self) -> Sequence[ScheduleRow]:
        with self._database_lock:
            return sorted(self._seen._schedules.values(), key=attrgetter("id"))

    def due_schedules(self, now: int, limit: int) -> Sequence[ScheduleRow]:
        with self._database_lock:
            active = [row for row in self._seen._schedules.values() if row.status == "active"]
        due = [(row.next_at, row) for row in active if row.next_at is not None and row.next_at <= now]
        return [row for _, row in sorted(due, key=lambda pair: pair[0])[:limit]]

    def replace_schedule(self, before: ScheduleRow, after: ScheduleRow) -> bool:
        with self._database_lock:
            row = self._schedules.get(before.id)
            if row is None or progress(row) != progress(before):
                return False
            self._schedules[row.id] = row._replace(
                status=after.status, next_at=after.next_at, last_at=after.last_at, note=after.note
            )
            return True

    def delete_schedule(self, schedule_id: str) -> bool:
        with self._database_lock:
            return self._schedules.pop(schedule_id, None) is not None

    # Leases
    def acquire_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        with self._database_lock:
            return lease_table.acquire(self._leases, owner, names, now, ttl_ns)

    def renew_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        with self._database_lock:
            return lease_table.renew(self._leases, owner, names, now, ttl_ns)

    def release_leases(self, owner: str, names: Collection[str]) -> None:
        with self._database_lock:
            lease_table.release(self._leases, owner, names)

    def select_leases(self) -> list[Lease]:
        with self._database_lock:
            return sorted(self._seen._leases.values())

    # Upkeep
    def tracked_positions(self) -> Mapping[str, int]:
        with self._database_lock:
            tracked = self._seen._max_tracking_ids
            return {name: position for name, position in tracked.items() if position is not None}

    def select_ended(self, where: EndedFilter) -> Sequence[InstanceRow]:
        with self._database_lock:
            seen = self._seen
            effects = {
                instance_id: [seen._effects[effect_id] for effect_id in effect_ids]
                for instance_id, effect_ids in seen._effects_of.items()
            }
            return upkeep.select_ended(seen._instances, effects, where)

    def located_events(self, instance_id: str) -> Sequence[Notification]:
        with self._database_lock:
            seen = self._seen
            places = seen._stored_events_index.get(instance_id, {})
            return [located(places[version] + 1, seen._stored_events[places[version]]) for version in sorted(places)]

    def prune(self, tombstones: Sequence[StoredEvent]) -> Sequence[str]:
        pruned: list[str] = []
        with self._database_lock:
            for tombstone in tombstones:
                instance_id = str(tombstone.originator_id)
                row = self._instances.get(instance_id)
                if row is None or row.ended_at is None or row.sequence != tombstone.originator_version - 1:
                    continue
                self._erase(instance_id)
                self._update_table([tombstone])
                pruned.append(instance_id)
        self._notify_listeners()
        return pruned

    def _erase(self, instance_id: str) -> None:
        """Nothing of it is left."""
        for recorder in (self, self.snapshots):
            upkeep.erase_events(recorder, instance_id)
        self._instances.pop(instance_id, None)
        self._inbox.pop(instance_id, None)
        self._steps.pop(instance_id, None)
        for key in [key for key in self._timers if key[0] == instance_id]:
            del self._timers[key]
        for effect_id in self._effects_of.pop(instance_id, ()):
            del self._effects[effect_id], self._numbers[effect_id]
            self._open.pop(effect_id, None)

    def restore(
        self,
        row: InstanceRow,
        events: Sequence[Notification],
        inbox: Sequence[InboxRow],
        effects: Sequence[EffectRow],
        steps: Sequence[StepRow] = (),
    ) -> None:
        rows = Changes(inbox=list(inbox), instances=[row], effects_requested=list(effects), steps=list(steps))
        with self._database_lock:
            if [(e.originator_version, e.topic) for e in self.located_events(row.id)] != [
                (row.sequence + 1, "instance_pruned")
            ]:
                raise IntegrityError(
                    f"expected instance '{row.id}' to have been pruned from this store at {row.sequence}"
                )
            self._check(rows)
            upkeep.erase_events(self, row.id)
            upkeep.put_back_events(self, events)
            self._apply(rows)

    @property
    def partitions(self) -> int:
        return self._partitions

    # What waits
    def count_timers(self, now: int, limit: int) -> int:
        with self._database_lock:
            return min(sum(row.due_at <= now for row in self._seen._timers.values()), limit)

    def count_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str]
    ) -> Mapping[str, Backlog]:
        with self._database_lock:
            return backlogs(self._seen._waiting(names, kinds, None), now, limit)
