"""The `eventsourcing` library's SQLite recorder, which also writes inbox, instances, timers and effects.

Invariants: `insert_events` is one transaction (`batch.py`). Facts are kept as JSON text that SQL can read; bytes
that are no UTF-8 (a cipher is set) are kept as they are. Positions in the log grow by one and are never used twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any

import msgspec
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.sqlite import SQLiteAggregateRecorder, SQLiteCursor, SQLiteProcessRecorder

from statewright.adapters.sqlite import batch, schema, upkeep
from statewright.adapters.sqlite import leases as lease_table
from statewright.adapters.sqlite.datastore import Datastore
from statewright.adapters.sqlite.queues import OPEN_KINDS, QUEUE, QUEUES_FEW, queues_of, union
from statewright.adapters.sqlite.schema import OPEN, columns
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

_ANY = 2**63 - 1
"""SQLite's largest integer: an upper bound that bounds nothing."""


class SQLiteInstanceRecorder(SQLiteProcessRecorder, InstanceRecorder):
    """`InstanceRecorder` on one SQLite file. `partitions` counts only when the file is made."""

    datastore: Datastore
    few = batch.FEW
    """Up to how many rows of a table are written one by one."""

    def __init__(self, datastore: Datastore, *, partitions: int = PARTITIONS_DEFAULT) -> None:
        super().__init__(datastore)
        self._partitions_wanted = partitions
        self._partitions: int | None = None
        self._next_position: int | None = None

    def create_table(self) -> None:
        """Make the tables if the file is new. Raises `InvalidError` if it is not ours or of a newer version."""
        with self.datastore.write() as connection:
            if schema.check(connection, self.datastore.path):
                schema.migrate(connection)
            else:
                schema.create(connection, self._partitions_wanted)
                super()._create_table(SQLiteCursor(connection.cursor()))

    def construct_create_table_statements(self) -> list[str]:
        # Tracking and snapshots are the library's; its table of events is not ours.
        tracking = [statement for statement in super().construct_create_table_statements() if "tracking" in statement]
        return [*tracking, *SQLiteAggregateRecorder(self.datastore, "stored_snapshots").create_table_statements]

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
        with self.datastore.write() as connection:
            if leases:
                lease_table.require(connection, leases)
            first = self._insert_batch(connection, stored_events, given)
            if tracking is not None:
                self._insert_tracking(SQLiteCursor(connection.cursor()), tracking)
        self._next_position = first + len(stored_events)
        return list(range(first, self._next_position))

    def _insert_batch(self, connection: sqlite3.Connection, events: Sequence[StoredEvent], changes: Changes) -> int:
        """Insert at the position that should be next; if another connection has taken it, at the one that is."""
        first = self._next_position or _next_position(connection)
        try:
            batch.write(connection, first, events, changes, self.few)
        except sqlite3.IntegrityError as error:
            if "stored_events.id" not in str(error):
                raise
            first = _next_position(connection)
            batch.write(connection, first, events, changes, self.few)
        return first

    def select_events(
        self,
        originator_id: Any,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        query = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB) FROM stored_events"
            " WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?"
            f" ORDER BY originator_version {'DESC' if desc else 'ASC'} LIMIT ?"
        )
        bounds = (-1 if gt is None else gt, _ANY if lte is None else lte, -1 if limit is None else limit)
        with self.datastore.read() as connection:
            return [StoredEvent(*row) for row in connection.execute(query, (originator_id, *bounds))]

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
        among = f"AND topic IN ({', '.join('?' * len(topics))})" if topics else ""
        query = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB), id FROM stored_events"
            f" WHERE id >= ? AND id <= ? {among} ORDER BY id LIMIT ?"
        )
        with self.datastore.read() as connection:
            rows = connection.execute(query, (first, _ANY if stop is None else stop, *topics, limit))
            return [Notification(*row) for row in rows]

    def max_notification_id(self) -> int:
        with self.datastore.read() as connection:
            # None for an empty log, as the library's recorders say it.
            return connection.execute("SELECT max(id) FROM stored_events").fetchone()[0]  # type: ignore[no-any-return]

    # The inbox
    def select_inbox(self, instance_id: str, limit: int) -> Sequence[InboxRow]:
        query = f"SELECT {columns(InboxRow)} FROM inbox WHERE instance_id = ? ORDER BY sequence DESC LIMIT ?"
        with self.datastore.read() as connection:
            return [InboxRow._make(row) for row in connection.execute(query, (instance_id, limit))]

    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None:
        query = f"SELECT {columns(InboxRow)} FROM inbox WHERE instance_id = ? AND source = ? AND event_id = ?"
        with self.datastore.read() as connection:
            row = connection.execute(query, (instance_id, source, event_id)).fetchone()
        return InboxRow._make(row) if row else None

    # Instances
    def select_instance(self, instance_id: str) -> InstanceRow | None:
        query = f"SELECT {columns(InstanceRow)} FROM instances WHERE id = ?"
        with self.datastore.read() as connection:
            row = connection.execute(query, (instance_id,)).fetchone()
        return InstanceRow._make(row) if row else None

    def select_instances(self, where: InstanceFilter) -> Sequence[InstanceRow]:
        conditions, values = ["id > ?"], [where.after or ""]
        if where.definition is not None:
            conditions.append("definition = ?")
            values.append(where.definition)
        if where.status is not None:
            conditions.append("status = ?")
            values.append(where.status)
        if where.state is not None:
            conditions.append("EXISTS (SELECT 1 FROM json_each(configuration) WHERE value = ?)")
            values.append(where.state)
        query = f"SELECT {columns(InstanceRow)} FROM instances WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?"
        with self.datastore.read() as connection:
            return [InstanceRow._make(row) for row in connection.execute(query, (*values, where.limit))]

    # Timers
    def due_timers(self, now: int, limit: int, *, partitions: Collection[int] | None = None) -> Sequence[TimerRow]:
        query = (
            f"SELECT {columns(TimerRow)} FROM timers WHERE due_at <= ? {_within(partitions)} ORDER BY due_at LIMIT ?"
        )
        with self.datastore.read() as connection:
            return [TimerRow._make(row) for row in connection.execute(query, (now, limit))]

    def next_timer_at(self, *, partitions: Collection[int] | None = None) -> int | None:
        query = f"SELECT due_at FROM timers WHERE due_at >= {-_ANY} {_within(partitions)} ORDER BY due_at LIMIT 1"
        with self.datastore.read() as connection:
            row = connection.execute(query).fetchone()
        return row[0] if row else None

    def select_timers(self, instance_id: str) -> Sequence[TimerRow]:
        query = f"SELECT {columns(TimerRow)} FROM timers WHERE instance_id = ? ORDER BY due_at"
        with self.datastore.read() as connection:
            return [TimerRow._make(row) for row in connection.execute(query, (instance_id,))]

    # Effects. A lease lost to a power cut is only performed again, so leases don't wait for the disk.
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
        queues = self._open_queues(names, kinds)
        if not queues:
            return ()
        due = (
            f"SELECT * FROM (SELECT rowid AS number, due_at FROM effects WHERE {QUEUE} AND due_at <= ?"
            f" {_within(partitions)} ORDER BY due_at, rowid LIMIT ?)"
        )
        claim = (
            "UPDATE effects SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, due_at = ?"
            f" WHERE rowid IN (SELECT number FROM ({union(due, len(queues))})"
            f" ORDER BY due_at, number LIMIT ?) RETURNING {columns(EffectRow)}, rowid"
        )
        values = [value for queue in queues for value in (*queue, now, limit)]
        with self.datastore.write(durable=False) as connection:
            rows = connection.execute(claim, (now + lease_ns, *values, limit)).fetchall()
        # SQLite returns them in no order; the numbers are in the order of request.
        return [EffectRow._make(row[:-1]) for row in sorted(rows, key=itemgetter(-1))]

    def _open_queues(self, names: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, str]]:
        """The queues that are asked for; where they are many, as with many workflows, without the kinds that nothing
        waits in. Whatever comes meanwhile rings."""
        queues = queues_of(names, kinds)
        if len(queues) <= QUEUES_FEW:
            return queues
        with self.datastore.read() as connection:
            open_kinds = {kind for (kind,) in connection.execute(OPEN_KINDS)}
        return [queue for queue in queues if queue[0] in open_kinds]

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str, *, counted: bool = True) -> bool:
        retry = (
            "UPDATE effects SET state = 'pending', due_at = ?, error = ?, attempt = attempt - ?"
            " WHERE instance_id = ? AND effect_id = ? AND lease_epoch = ? AND state = 'running'"
        )
        key = (instance_of(effect_id), effect_id, lease_epoch)
        with self.datastore.write(durable=False) as connection:
            return connection.execute(retry, (due_at, error, not counted, *key)).rowcount == 1

    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        extend = (
            "UPDATE effects SET due_at = ?1, details = iif(?2 = '', details, ?2)"
            " WHERE instance_id = ?3 AND effect_id = ?4 AND lease_epoch = ?5 AND state = 'running'"
        )
        key = (instance_of(effect_id), effect_id, lease_epoch)
        with self.datastore.write(durable=False) as connection:
            return connection.execute(extend, (due_at, details, *key)).rowcount == 1

    def release_effects(self, *, partitions: Collection[int] | None = None) -> int:
        # due_at of a running effect is the end of its lease; 0 is past by any clock.
        release = (
            f"UPDATE effects SET state = 'pending', due_at = 0 WHERE state = 'running' AND {OPEN} {_within(partitions)}"
        )
        with self.datastore.write(durable=False) as connection:
            return connection.execute(release).rowcount

    def next_effect_at(
        self, *, names: Sequence[str], kinds: Sequence[str], partitions: Collection[int] | None = None
    ) -> int | None:
        queues = self._open_queues(names, kinds)
        if not queues:
            return None
        earliest = union(f"SELECT min(due_at) FROM effects WHERE {QUEUE} {_within(partitions)}", len(queues))
        with self.datastore.read() as connection:
            rows = connection.execute(earliest, [value for queue in queues for value in queue]).fetchall()
        return min((row[0] for row in rows if row[0] is not None), default=None)

    def select_effects(self, instance_id: str) -> Sequence[EffectRow]:
        query = f"SELECT {columns(EffectRow)} FROM effects WHERE instance_id = ? ORDER BY rowid"
        with self.datastore.read() as connection:
            return [EffectRow._make(row) for row in connection.execute(query, (instance_id,))]

    # Steps
    def select_steps(self, instance_id: str, steps: Collection[str] | None = None) -> Sequence[StepRow]:
        among = "" if steps is None else "AND step IN (SELECT value FROM json_each(?2))"
        query = f"SELECT {columns(StepRow)} FROM steps WHERE instance_id = ?1 {among} ORDER BY step"
        values = (instance_id,) if steps is None else (instance_id, msgspec.json.encode(list(steps)).decode())
        with self.datastore.read() as connection:
            return [StepRow._make(row) for row in connection.execute(query, values)]

    # Definitions
    def insert_definition(self, row: DefinitionRow) -> None:
        query = "SELECT digest FROM definitions WHERE name = ? AND version = ?"
        with self.datastore.write() as connection:
            known = connection.execute(query, (row.name, row.version)).fetchone()
            if known is None:
                connection.execute(f"INSERT INTO definitions ({columns(DefinitionRow)}) VALUES (?, ?, ?, ?)", row)
            elif known[0] != row.digest:
                raise IntegrityError(
                    f"expected definition '{row.name}' version '{row.version}' with the digest it is stored with, "
                    f"{known[0]}, got {row.digest}"
                )

    def select_definition(self, name: str, version: str) -> DefinitionRow | None:
        query = f"SELECT {columns(DefinitionRow)} FROM definitions WHERE name = ? AND version = ?"
        with self.datastore.read() as connection:
            row = connection.execute(query, (name, version)).fetchone()
        return DefinitionRow._make(row) if row else None

    def select_definitions(self) -> Sequence[DefinitionRow]:
        with self.datastore.read() as connection:
            rows = connection.execute(f"SELECT {columns(DefinitionRow)} FROM definitions ORDER BY number")
            return [DefinitionRow._make(row) for row in rows]

    # Parked messages
    def park(self, row: ParkedRow, *, timer: tuple[str, str] | None = None, effect_id: str | None = None) -> None:
        with self.datastore.write() as connection:
            upkeep.park(connection, row, timer, effect_id)

    def select_parked(self, limit: int) -> Sequence[ParkedRow]:
        query = f"SELECT {columns(ParkedRow)} FROM parked ORDER BY number LIMIT ?"
        with self.datastore.read() as connection:
            return [ParkedRow._make(row) for row in connection.execute(query, (limit,))]

    # Leases
    def acquire_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        with self.datastore.write() as connection:
            return lease_table.acquire(connection, owner, names, now, ttl_ns)

    def renew_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        with self.datastore.write() as connection:
            return lease_table.renew(connection, owner, names, now, ttl_ns)

    def release_leases(self, owner: str, names: Collection[str]) -> None:
        with self.datastore.write() as connection:
            lease_table.release(connection, owner, names)

    def select_leases(self) -> list[Lease]:
        with self.datastore.read() as connection:
            return lease_table.select(connection)

    # What is parked
    def find_parked(self, parked_id: str) -> ParkedRow | None:
        query = f"SELECT {columns(ParkedRow)} FROM parked WHERE parked_id = ?"
        with self.datastore.read() as connection:
            row = connection.execute(query, (parked_id,)).fetchone()
        return ParkedRow._make(row) if row else None

    def unpark(
        self,
        parked_id: str,
        *,
        timer: TimerRow | None = None,
        effect_id: str | None = None,
        effect_state: str = "pending",
    ) -> bool:
        with self.datastore.write() as connection:
            return upkeep.unpark(connection, parked_id, timer, effect_id, effect_state)

    # Upkeep
    def consistent(self) -> AbstractContextManager[None]:
        return self.datastore.consistent()

    def tracked_positions(self) -> Mapping[str, int]:
        query = (
            "SELECT application_name, max(notification_id) FROM tracking"
            " WHERE application_name NOT GLOB '__*' GROUP BY application_name"  # The library's own mark.
        )
        with self.datastore.read() as connection:
            return dict(connection.execute(query).fetchall())

    def select_ended(self, where: EndedFilter) -> Sequence[InstanceRow]:
        with self.datastore.read() as connection:
            return upkeep.select_ended(connection, where)

    def located_events(self, instance_id: str) -> Sequence[Notification]:
        query = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB), id FROM stored_events"
            " WHERE originator_id = ? ORDER BY originator_version"
        )
        with self.datastore.read() as connection:
            return [Notification(*row) for row in connection.execute(query, (instance_id,))]

    def prune(self, tombstones: Sequence[StoredEvent]) -> Sequence[str]:
        with self.datastore.write() as connection:
            first = _next_position(connection)
            pruned = upkeep.prune(connection, first, tombstones)
        self._next_position = first + len(pruned)
        return pruned

    def restore(
        self,
        row: InstanceRow,
        events: Sequence[Notification],
        inbox: Sequence[InboxRow],
        effects: Sequence[EffectRow],
        steps: Sequence[StepRow] = (),
    ) -> None:
        with self.datastore.write() as connection:
            upkeep.restore(connection, row, events, inbox, effects, steps)

    @property
    def partitions(self) -> int:
        if self._partitions is None:
            with self.datastore.read() as connection:
                query = "SELECT value FROM meta WHERE key = 'partitions'"
                self._partitions = int(connection.execute(query).fetchone()[0])
        return self._partitions

    # Schedules
    def insert_schedule(self, row: ScheduleRow) -> None:
        values = ", ".join("?" * len(row))
        with self.datastore.write() as connection:
            connection.execute(f"INSERT INTO schedules ({columns(ScheduleRow)}) VALUES ({values})", row)

    def select_schedule(self, schedule_id: str) -> ScheduleRow | None:
        return next(iter(self._schedules("WHERE id = ?", (schedule_id,))), None)

    def select_schedules(self) -> Sequence[ScheduleRow]:
        with self.datastore.read() as connection:
            query = "SELECT count(*) FROM sqlite_schema WHERE name = 'schedules'"
            exists = bool(connection.execute(query).fetchone()[0])
        return self._schedules("ORDER BY id", ()) if exists else []

    def due_schedules(self, now: int, limit: int) -> Sequence[ScheduleRow]:
        return self._schedules("WHERE status = 'active' AND next_at <= ? ORDER BY next_at LIMIT ?", (now, limit))

    def _schedules(self, which: str, values: tuple[Any, ...]) -> list[ScheduleRow]:
        with self.datastore.read() as connection:
            rows = connection.execute(f"SELECT {columns(ScheduleRow)} FROM schedules {which}", values)
            return [ScheduleRow._make(row) for row in rows]

    def replace_schedule(self, before: ScheduleRow, after: ScheduleRow) -> bool:
        replace = (
            "UPDATE schedules SET status = ?, next_at = ?, last_at = ?, note = ?"
            " WHERE id = ? AND status = ? AND next_at IS ? AND last_at IS ? AND note = ?"
        )
        values = (after.status, after.next_at, after.last_at, after.note, before.id)
        known = (before.status, before.next_at, before.last_at, before.note)
        with self.datastore.write() as connection:
            return connection.execute(replace, (*values, *known)).rowcount == 1

    def delete_schedule(self, schedule_id: str) -> bool:
        with self.datastore.write() as connection:
            return connection.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,)).rowcount == 1

    # What waits
    def count_timers(self, now: int, limit: int) -> int:
        with self.datastore.read() as connection:
            return _count(connection, "SELECT 1 FROM timers WHERE due_at <= ?", now, limit)

    def count_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str]
    ) -> Mapping[str, Backlog]:
        found = {}
        with self.datastore.read() as connection:
            for kind, name in queues_of(names, kinds):
                opened = _count(connection, f"SELECT 1 FROM effects WHERE {QUEUE}", kind, name, limit)
                if opened:
                    query = f"SELECT 1 FROM effects WHERE {QUEUE} AND due_at <= ?"
                    due = _count(connection, query, kind, name, now, limit)
                    found[f"perform.{name}" if kind == "perform" else kind] = Backlog(due, opened)
        return found


def _count(connection: sqlite3.Connection, rows: str, *values: Any) -> int:
    found: int = connection.execute(f"SELECT count(*) FROM ({rows} LIMIT ?)", values).fetchone()[0]
    return found


def _next_position(connection: sqlite3.Connection) -> int:
    """One after the last position ever given out, which the last row need not have any more."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'stored_events'").fetchone()
    return row[0] + 1 if row else 1


def _within(partitions: Collection[int] | None) -> str:
    """A condition on column `partition`; of integers alone, which need no parameters."""
    return "" if partitions is None else f"AND partition IN ({', '.join(str(int(one)) for one in sorted(partitions))})"
