"""The recorder on PostgreSQL: facts with inbox, instances, timers and effects in one transaction.

Invariants: `insert_events` is one transaction (`batch.py`). Positions in the log grow and become
visible in their order, whoever writes; they have gaps where a transaction failed. Many processes may write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any

from eventsourcing.persistence import ApplicationRecorder, IntegrityError, Notification, StoredEvent, Subscription
from eventsourcing.postgres import PostgresTrackingRecorder

from statewright.adapters.postgres import batch, schema, upkeep
from statewright.adapters.postgres import leases as lease_table
from statewright.adapters.postgres.arrays import Integers, Texts
from statewright.adapters.postgres.datastore import Datastore
from statewright.adapters.postgres.schema import OPEN, QUEUE, columns
from statewright.adapters.postgres.snapshots import read_events
from statewright.engine.ids import instance_of
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
from statewright.engine.steps import StepRow

_WITHIN = "(%s::bigint[] IS NULL OR partition = ANY(%s))"
_WAITING = f"{OPEN} AND kind = queue.kind AND {QUEUE} = queue.name AND {_WITHIN}"
"""The effects of one queue, in the words of the index `effects_waiting`."""

_CLAIM = f"""WITH due AS MATERIALIZED (
        SELECT instance_id, effect_id FROM unnest(%s, %s) AS queue(kind, name), LATERAL (
            SELECT instance_id, effect_id, number, due_at FROM effects WHERE {_WAITING} AND due_at <= %s
            ORDER BY due_at, number LIMIT %s FOR UPDATE SKIP LOCKED) AS waiting
        ORDER BY due_at, number LIMIT %s)
    UPDATE effects SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, due_at = %s
    FROM due WHERE effects.instance_id = due.instance_id AND effects.effect_id = due.effect_id
    RETURNING {", ".join(f"effects.{name}" for name in EffectRow._fields)}, effects.number"""
_NEXT_EFFECT = f"""SELECT min(due_at) FROM unnest(%s, %s) AS queue(kind, name), LATERAL (
        SELECT due_at FROM effects WHERE {_WAITING} ORDER BY due_at LIMIT 1) AS earliest"""
_QUEUED = f"SELECT FROM effects WHERE {OPEN} AND kind = queue.kind AND {QUEUE} = queue.name"
_COUNT_EFFECTS = f"""SELECT queue.kind, queue.name, due.number, opened.number FROM unnest(%s, %s) AS queue(kind, name),
    LATERAL (SELECT count(*) AS number FROM ({_QUEUED} AND due_at <= %s LIMIT %s) AS rows) AS due,
    LATERAL (SELECT count(*) AS number FROM ({_QUEUED} LIMIT %s) AS rows) AS opened
    WHERE opened.number > 0"""
_RELEASE = f"""UPDATE effects SET state = 'pending', due_at = 0 WHERE state = 'running' AND {OPEN} AND {_WITHIN}"""


class PostgresInstanceRecorder(PostgresTrackingRecorder, InstanceRecorder):
    """`InstanceRecorder` on one PostgreSQL database. `partitions` counts only when the store is made."""

    datastore: Datastore

    def __init__(self, datastore: Datastore, *, partitions: int = PARTITIONS_DEFAULT) -> None:
        super().__init__(datastore)
        self._partitions_wanted = partitions
        self._partitions: int | None = None

    def create_table(self) -> None:
        """Make the store or bring it to this version. Raises `InvalidError` if it is a newer one's."""
        with self.datastore.read() as connection:
            schema.migrate(connection, self._partitions_wanted)

    # Facts
    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        changes: Changes | None = None,
        leases: Sequence[Lease] = (),
        **kwargs: Any,
    ) -> Sequence[int] | None:
        tracking = kwargs.get("tracking")
        given = changes if changes is not None else Changes()
        if tracking is None:
            with self.datastore.statement() as cursor:
                batch.write(cursor, stored_events, given, leases)
        else:
            with self.datastore.write() as cursor:
                with self.datastore.library_cursor(cursor) as theirs:
                    self._insert_tracking(theirs, tracking)
                batch.write(cursor, stored_events, given, leases)
        return [row[0] for row in cursor.fetchall()]

    def select_events(
        self,
        originator_id: Any,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        return read_events(self.datastore, "stored_events", originator_id, gt, lte, desc, limit)

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
        among = "AND topic = ANY(%s)" if topics else ""
        query = (
            "SELECT originator_id, originator_version, topic, state, notification_id FROM stored_events"
            f" WHERE notification_id >= %s AND notification_id <= %s {among} ORDER BY notification_id LIMIT %s"
        )
        values = (first, _ANY if stop is None else stop, *([Texts(topics)] if topics else []), limit)
        return [Notification(*row) for row in self._rows(query, values)]

    def max_notification_id(self) -> int:
        # None for an empty log, as the library's recorders say it.
        return self._rows("SELECT max(notification_id) FROM stored_events")[0][0]  # type: ignore[no-any-return]

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        raise NotImplementedError("expected a follower of the engine: it is told of what is recorded")

    # The inbox
    def select_inbox(self, instance_id: str, limit: int) -> Sequence[InboxRow]:
        query = f"SELECT {columns(InboxRow)} FROM inbox WHERE instance_id = %s ORDER BY sequence DESC LIMIT %s"
        return [InboxRow._make(row) for row in self._rows(query, (instance_id, limit))]

    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None:
        query = f"SELECT {columns(InboxRow)} FROM inbox WHERE instance_id = %s AND source = %s AND event_id = %s"
        rows = self._rows(query, (instance_id, source, event_id))
        return InboxRow._make(rows[0]) if rows else None

    # Instances
    def select_instance(self, instance_id: str) -> InstanceRow | None:
        rows = self._rows(f"SELECT {columns(InstanceRow)} FROM instances WHERE id = %s", (instance_id,))
        return InstanceRow._make(rows[0]) if rows else None

    def select_instances(self, where: InstanceFilter) -> Sequence[InstanceRow]:
        conditions, values = ["id > %s"], [where.after or ""]
        if where.definition is not None:
            conditions.append("definition = %s")
            values.append(where.definition)
        if where.status is not None:
            conditions.append("status = %s")
            values.append(where.status)
        if where.state is not None:
            conditions.append("%s IN (SELECT json_array_elements_text(configuration::json))")
            values.append(where.state)
        query = f"SELECT {columns(InstanceRow)} FROM instances WHERE {' AND '.join(conditions)} ORDER BY id LIMIT %s"
        return [InstanceRow._make(row) for row in self._rows(query, (*values, where.limit))]

    # Timers
    def due_timers(self, now: int, limit: int, *, partitions: Collection[int] | None = None) -> Sequence[TimerRow]:
        query = f"SELECT {columns(TimerRow)} FROM timers WHERE due_at <= %s AND {_WITHIN} ORDER BY due_at LIMIT %s"
        return [TimerRow._make(row) for row in self._rows(query, (now, *_within(partitions), limit))]

    def next_timer_at(self, *, partitions: Collection[int] | None = None) -> int | None:
        query = f"SELECT due_at FROM timers WHERE {_WITHIN} ORDER BY due_at LIMIT 1"
        rows = self._rows(query, _within(partitions))
        return rows[0][0] if rows else None

    def select_timers(self, instance_id: str) -> Sequence[TimerRow]:
        query = f"SELECT {columns(TimerRow)} FROM timers WHERE instance_id = %s ORDER BY due_at"
        return [TimerRow._make(row) for row in self._rows(query, (instance_id,))]

    # Effects. A claim lost when the server crashes is only performed again, so claims don't wait for the disk.
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
        queues = _queues(names, kinds)
        if not queues[0]:
            return ()
        values = (*queues, *_within(partitions), now, limit, limit, now + lease_ns)
        with self.datastore.write(durable=False) as cursor:
            cursor.execute(_CLAIM.encode(), values, prepare=True)
        # They are returned in no order; the numbers are in the order of request.
        return [EffectRow._make(row[:-1]) for row in sorted(cursor.fetchall(), key=itemgetter(-1))]

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str, *, counted: bool = True) -> bool:
        retry = (
            "UPDATE effects SET state = 'pending', due_at = %s, error = %s, attempt = attempt - %s"
            " WHERE instance_id = %s AND effect_id = %s AND lease_epoch = %s AND state = 'running'"
        )
        key = (instance_of(effect_id), effect_id, lease_epoch)
        with self.datastore.write(durable=False) as cursor:
            cursor.execute(retry.encode(), (due_at, error, int(not counted), *key))
        return cursor.rowcount == 1

    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        extend = (
            "UPDATE effects SET due_at = %s, details = coalesce(nullif(%s, ''), details)"
            " WHERE instance_id = %s AND effect_id = %s AND lease_epoch = %s AND state = 'running'"
        )
        key = (instance_of(effect_id), effect_id, lease_epoch)
        with self.datastore.write(durable=False) as cursor:
            cursor.execute(extend.encode(), (due_at, details, *key))
        return cursor.rowcount == 1

    def release_effects(self, *, partitions: Collection[int] | None = None) -> int:
        # due_at of a running effect is the end of its lease; 0 is past by any clock.
        with self.datastore.write(durable=False) as cursor:
            cursor.execute(_RELEASE.encode(), _within(partitions))
        return cursor.rowcount

    def next_effect_at(
        self, *, names: Sequence[str], kinds: Sequence[str], partitions: Collection[int] | None = None
    ) -> int | None:
        queues = _queues(names, kinds)
        if not queues[0]:
            return None
        return self._rows(_NEXT_EFFECT, (*queues, *_within(partitions)))[0][0]  # type: ignore[no-any-return]

    def select_effects(self, instance_id: str) -> Sequence[EffectRow]:
        query = f"SELECT {columns(EffectRow)} FROM effects WHERE instance_id = %s ORDER BY number"
        return [EffectRow._make(row) for row in self._rows(query, (instance_id,))]

    # Steps
    def select_steps(self, instance_id: str, steps: Collection[str] | None = None) -> Sequence[StepRow]:
        among = None if steps is None else Texts(steps)
        query = (
            f"SELECT {columns(StepRow)} FROM steps WHERE instance_id = %s AND (%s::text[] IS NULL OR step = ANY(%s))"
            " ORDER BY step"
        )
        return [StepRow._make(row) for row in self._rows(query, (instance_id, among, among))]

    # Definitions
    def insert_definition(self, row: DefinitionRow) -> None:
        insert = (
            f"INSERT INTO definitions ({columns(DefinitionRow)}) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (name, version) DO NOTHING"
        )
        with self.datastore.write() as cursor:
            cursor.execute("SELECT digest FROM definitions WHERE name = %s AND version = %s", (row.name, row.version))
            if not (found := cursor.fetchall()):
                cursor.execute(insert.encode(), row)
        known = found[0][0] if found else self._digest_of(row)
        if known != row.digest:
            raise IntegrityError(
                f"expected definition '{row.name}' version '{row.version}' with the digest it is stored with, "
                f"{known}, got {row.digest}"
            )

    def _digest_of(self, row: DefinitionRow) -> str:
        """After an insert, which another worker may have been faster with."""
        stored = self.select_definition(row.name, row.version)
        return stored.digest if stored is not None else ""

    def select_definition(self, name: str, version: str) -> DefinitionRow | None:
        query = f"SELECT {columns(DefinitionRow)} FROM definitions WHERE name = %s AND version = %s"
        rows = self._rows(query, (name, version))
        return DefinitionRow._make(rows[0]) if rows else None

    def select_definitions(self) -> Sequence[DefinitionRow]:
        query = f"SELECT {columns(DefinitionRow)} FROM definitions ORDER BY number"
        return [DefinitionRow._make(row) for row in self._rows(query)]

    # What is parked
    def park(self, row: ParkedRow, *, timer: tuple[str, str] | None = None, effect_id: str | None = None) -> None:
        with self.datastore.write() as cursor:
            upkeep.park(cursor, row, timer, effect_id)

    def unpark(
        self,
        parked_id: str,
        *,
        timer: TimerRow | None = None,
        effect_id: str | None = None,
        effect_state: str = "pending",
    ) -> bool:
        with self.datastore.write() as cursor:
            return upkeep.unpark(cursor, parked_id, timer, effect_id, effect_state)

    def find_parked(self, parked_id: str) -> ParkedRow | None:
        rows = self._rows(f"SELECT {columns(ParkedRow)} FROM parked WHERE parked_id = %s", (parked_id,))
        return ParkedRow._make(rows[0]) if rows else None

    def select_parked(self, limit: int) -> Sequence[ParkedRow]:
        query = f"SELECT {columns(ParkedRow)} FROM parked ORDER BY number LIMIT %s"
        return [ParkedRow._make(row) for row in self._rows(query, (limit,))]

    # Leases, by the server's clock
    def acquire_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        return lease_table.acquire(self.datastore, owner, names, ttl_ns)

    def renew_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        return lease_table.renew(self.datastore, owner, names, ttl_ns)

    def release_leases(self, owner: str, names: Collection[str]) -> None:
        lease_table.release(self.datastore, owner, names)

    def select_leases(self) -> list[Lease]:
        return lease_table.select(self.datastore)

    # Schedules
    def insert_schedule(self, row: ScheduleRow) -> None:
        insert = f"INSERT INTO schedules ({columns(ScheduleRow)}) VALUES ({', '.join(['%s'] * len(row))})"
        with self.datastore.write() as cursor:
            cursor.execute(insert.encode(), row)

    def select_schedule(self, schedule_id: str) -> ScheduleRow | None:
        return next(iter(self._schedules("WHERE id = %s", (schedule_id,))), None)

    def select_schedules(self) -> Sequence[ScheduleRow]:
        return self._schedules("ORDER BY id", ())

    def due_schedules(self, now: int, limit: int) -> Sequence[ScheduleRow]:
        return self._schedules("WHERE status = 'active' AND next_at <= %s ORDER BY next_at LIMIT %s", (now, limit))

    def _schedules(self, which: str, values: tuple[Any, ...]) -> list[ScheduleRow]:
        rows = self._rows(f"SELECT {columns(ScheduleRow)} FROM schedules {which}", values)
        return [ScheduleRow._make(row) for row in rows]

    def replace_schedule(self, before: ScheduleRow, after: ScheduleRow) -> bool:
        replace = (
            "UPDATE schedules SET status = %s, next_at = %s, last_at = %s, note = %s WHERE id = %s AND status = %s"
            " AND next_at IS NOT DISTINCT FROM %s AND last_at IS NOT DISTINCT FROM %s AND note = %s"
        )
        values = (after.status, after.next_at, after.last_at, after.note, before.id)
        known = (before.status, before.next_at, before.last_at, before.note)
        with self.datastore.write() as cursor:
            cursor.execute(replace.encode(), (*values, *known))
        return cursor.rowcount == 1

    def delete_schedule(self, schedule_id: str) -> bool:
        with self.datastore.write() as cursor:
            cursor.execute("DELETE FROM schedules WHERE id = %s", (schedule_id,))
        return cursor.rowcount == 1

    # Upkeep
    def consistent(self) -> AbstractContextManager[None]:
        return self.datastore.consistent()

    def tracked_positions(self) -> Mapping[str, int]:
        query = (
            "SELECT application_name, max(notification_id) FROM notification_tracking"
            " WHERE NOT starts_with(application_name, '__') GROUP BY application_name"  # The library's own mark.
        )
        return dict(self._rows(query))

    def select_ended(self, where: EndedFilter) -> Sequence[InstanceRow]:
        with self.datastore.read() as connection:
            return upkeep.select_ended(connection, where)

    def located_events(self, instance_id: str) -> Sequence[Notification]:
        query = (
            "SELECT originator_id, originator_version, topic, state, notification_id FROM stored_events"
            " WHERE originator_id = %s ORDER BY originator_version"
        )
        return [Notification(*row) for row in self._rows(query, (instance_id,))]

    def prune(self, tombstones: Sequence[StoredEvent]) -> Sequence[str]:
        with self.datastore.write() as cursor:
            return upkeep.prune(cursor, tombstones)

    def restore(
        self,
        row: InstanceRow,
        events: Sequence[Notification],
        inbox: Sequence[InboxRow],
        effects: Sequence[EffectRow],
        steps: Sequence[StepRow] = (),
    ) -> None:
        with self.datastore.write() as cursor:
            upkeep.restore(cursor, row, events, inbox, effects, steps)

    @property
    def partitions(self) -> int:
        if self._partitions is None:
            self._partitions = int(self._rows("SELECT value FROM meta WHERE key = 'partitions'")[0][0])
        return self._partitions

    # What waits
    def count_timers(self, now: int, limit: int) -> int:
        query = "SELECT count(*) FROM (SELECT FROM timers WHERE due_at <= %s LIMIT %s) AS due"
        return int(self._rows(query, (now, limit))[0][0])

    def count_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str]
    ) -> Mapping[str, Backlog]:
        rows = self._rows(_COUNT_EFFECTS, (*_queues(names, kinds), now, limit, limit))
        return {f"perform.{name}" if kind == "perform" else kind: Backlog(*counts) for kind, name, *counts in rows}

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.datastore.read() as connection:
            return connection.execute(query.encode(), values, prepare=True, binary=True).fetchall()


_ANY = 2**63 - 1
"""The largest integer: an upper bound that bounds nothing."""


def _within(partitions: Collection[int] | None) -> tuple[Integers | None, Integers | None]:
    """The parameters of `_WITHIN`."""
    among = None if partitions is None else Integers(partitions)
    return among, among


def _queues(names: Sequence[str], kinds: Sequence[str]) -> tuple[Texts, Texts]:
    """The queues that are asked for: their kinds and their names."""
    others = [kind for kind in kinds if kind != "perform"]
    return Texts(["perform"] * len(names) + others), Texts([*names, *[""] * len(others)])
