"""The `eventsourcing` library's recorder in memory, which also keeps inbox, instances, timers and effects.

Invariants: `insert_events` checks everything before it changes anything, so that a transaction is there as a whole or
not at all; what SQLite refuses is refused here too. Made for tests: some queries walk over all open rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from eventsourcing.persistence import DataError, IntegrityError, StoredEvent
from eventsourcing.popo import POPOProcessRecorder

from statewright.engine.recorder import (
    PARTITIONS_DEFAULT,
    Backlog,
    Changes,
    DefinitionRow,
    EffectRow,
    InboxRow,
    InstanceFilter,
    InstanceRecorder,
    InstanceRow,
    ParkedRow,
    TimerRow,
)
from statewright.engine.relatives import LASTING

_DIGEST_BYTES = 16
_OPEN = frozenset({"pending", "running"})
_due_at = attrgetter("due_at")


class MemoryInstanceRecorder(POPOProcessRecorder, InstanceRecorder):
    """`InstanceRecorder` in memory, for as many threads as there are."""

    def __init__(self, *, partitions: int = PARTITIONS_DEFAULT) -> None:
        super().__init__()
        self._partitions = partitions
        self._inbox: dict[str, dict[tuple[str, str], InboxRow]] = {}
        self._instances: dict[str, InstanceRow] = {}
        self._timers: dict[tuple[str, str], TimerRow] = {}
        self._effects: dict[str, EffectRow] = {}
        self._effects_of: dict[str, list[str]] = {}
        self._open: dict[str, int] = {}
        """The effects still to be performed, with their numbers in the order of request."""
        self._definitions: dict[tuple[str, str], DefinitionRow] = {}
        self._parked: dict[str, ParkedRow] = {}

    # Facts
    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        with self._database_lock:
            if changes is not None:
                self._check(changes)
            positions = super().insert_events(stored_events, **kwargs)
            if changes is not None:
                self._apply(changes)
            return positions

    def _check(self, changes: Changes) -> None:
        """Raise what a database raises for rows that it can't take."""
        for rows in (changes.inbox, changes.instances, changes.timers_set, changes.effects_requested):
            _refuse_nul(rows)
        _refuse_nul(changes.effects_ended)
        seen: set[tuple[str, str, str]] = set()
        for row in changes.inbox:
            if len(row.digest) != _DIGEST_BYTES:
                raise DataError(f"expected digests of {_DIGEST_BYTES} bytes, got {len(row.digest)}")
            if row[:3] in seen or (row.source, row.event_id) in self._inbox.get(row.instance_id, ()):
                raise IntegrityError(f"expected an identity that is not in the inbox, got {row[:3]}")
            seen.add(row[:3])
        asked: set[str] = set()
        for effect in changes.effects_requested:
            if effect.effect_id in asked or effect.effect_id in self._effects:
                raise IntegrityError(f"expected an effect that is not there yet, got '{effect.effect_id}'")
            asked.add(effect.effect_id)

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
            if effect.state in _OPEN:
                self._open[effect.effect_id] = len(self._effects)
            self._effects[effect.effect_id] = effect
        for state, error, effect_id in changes.effects_ended:
            self._end(effect_id, state, error)

    def _close(self, instance_id: str) -> None:
        for key in [key for key in self._timers if key[0] == instance_id]:
            del self._timers[key]
        for effect_id in self._effects_of.get(instance_id, ()):
            if effect_id in self._open and self._effects[effect_id].kind not in LASTING:
                self._end(effect_id, "cancelled")

    def _end(self, effect_id: str, state: str, error: str | None = None) -> None:
        row = self._effects.get(effect_id)
        if row is not None and row.state != "done":
            self._effects[effect_id] = row._replace(state=state, error=row.error if error is None else error)
            self._open.pop(effect_id, None)

    # The inbox
    def select_inbox(self, instance_id: str, limit: int) -> Sequence[InboxRow]:
        with self._database_lock:
            rows = sorted(self._inbox.get(instance_id, {}).values(), key=attrgetter("sequence"), reverse=True)
            return rows[:limit]

    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None:
        with self._database_lock:
            return self._inbox.get(instance_id, {}).get((source, event_id))

    # Instances
    def select_instance(self, instance_id: str) -> InstanceRow | None:
        with self._database_lock:
            return self._instances.get(instance_id)

    def select_instances(self, where: InstanceFilter) -> Sequence[InstanceRow]:
        with self._database_lock:
            found = [row for row in self._instances.values() if _fits(row, where)]
        return sorted(found, key=attrgetter("id"))[: where.limit]

    # Timers
    def due_timers(self, now: int, limit: int) -> Sequence[TimerRow]:
        with self._database_lock:
            return sorted((row for row in self._timers.values() if row.due_at <= now), key=_due_at)[:limit]

    def next_timer_at(self) -> int | None:
        with self._database_lock:
            return min(map(_due_at, self._timers.values()), default=None)

    def select_timers(self, instance_id: str) -> Sequence[TimerRow]:
        with self._database_lock:
            return sorted((row for key, row in self._timers.items() if key[0] == instance_id), key=_due_at)

    # Effects
    def claim_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str], lease_ns: int
    ) -> Sequence[EffectRow]:
        with self._database_lock:
            due = sorted((row for row in self._waiting(names, kinds) if row.due_at <= now), key=_due_at)[:limit]
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

    def _waiting(self, names: Sequence[str], kinds: Sequence[str]) -> Iterable[EffectRow]:
        """The open effects that are asked for, in the order of request."""
        for effect_id in sorted(self._open, key=self._open.__getitem__):
            row = self._effects[effect_id]
            if row.name in names if row.kind == "perform" else row.kind in kinds:
                yield row

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str) -> bool:
        with self._database_lock:
            row = self._effects.get(effect_id)
            if row is None or row.state != "running" or row.lease_epoch != lease_epoch:
                return False
            self._effects[effect_id] = row._replace(state="pending", due_at=due_at, error=error)
            return True

    def release_effects(self) -> int:
        with self._database_lock:
            running = [row for row in map(self._effects.__getitem__, self._open) if row.state == "running"]
            self._effects.update((row.effect_id, row._replace(state="pending", due_at=0)) for row in running)
            return len(running)

    def next_effect_at(self, *, names: Sequence[str], kinds: Sequence[str]) -> int | None:
        with self._database_lock:
            return min(map(_due_at, self._waiting(names, kinds)), default=None)

    def select_effects(self, instance_id: str) -> Sequence[EffectRow]:
        with self._database_lock:
            return [self._effects[effect_id] for effect_id in self._effects_of.get(instance_id, ())]

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
            return self._definitions.get((name, version))

    def select_definitions(self) -> Sequence[DefinitionRow]:
        with self._database_lock:
            return list(self._definitions.values())

    # Parked messages
    def park(self, row: ParkedRow) -> None:
        with self._database_lock:
            self._parked.setdefault(row.parked_id, row)

    def select_parked(self, limit: int) -> Sequence[ParkedRow]:
        with self._database_lock:
            return list(self._parked.values())[:limit]

    @property
    def partitions(self) -> int:
        return self._partitions

    # What waits
    def count_timers(self, now: int, limit: int) -> int:
        with self._database_lock:
            return min(sum(row.due_at <= now for row in self._timers.values()), limit)

    def count_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str]
    ) -> Mapping[str, Backlog]:
        found: dict[str, Backlog] = {}
        with self._database_lock:
            for row in self._waiting(names, kinds):
                queue = f"perform.{row.name}" if row.kind == "perform" else row.kind
                before = found.get(queue, Backlog(0, 0))
                found[queue] = Backlog(min(before.due + (row.due_at <= now), limit), min(before.open + 1, limit))
        return found


def _fits(row: InstanceRow, where: InstanceFilter) -> bool:
    return (
        (where.after is None or row.id > where.after)
        and where.definition in (None, row.definition)
        and where.status in (None, row.status)
        and (where.state is None or where.state in msgspec.json.decode(row.configuration))
    )


def _refuse_nul(rows: Iterable[tuple[object, ...]]) -> None:
    for row in rows:
        for cell in row:
            if isinstance(cell, str) and "\0" in cell:
                raise DataError(f"expected text without NUL characters, got {cell[:100]!r}")
