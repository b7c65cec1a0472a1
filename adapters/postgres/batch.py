"""What one transaction writes: a statement a table, each with the columns of its rows as arrays (`unnest`).

Invariants: positions in the log become visible in their order. The statement that writes facts first takes an
advisory lock, which is held until the transaction has ended, and only then draws positions: so who sees a position
sees all before it. It comes last and is whole on the server before it begins, so the lock is held for the facts and
the commit alone. Rows that two writers might both want are written in the order of their keys, so that they wait for
each other rather than block each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from eventsourcing.persistence import StoredEvent

from statewright.adapters.postgres.arrays import Blobs, Integers, Texts, columns_of
from statewright.adapters.postgres.schema import OPEN, TRANSIENT, columns
from statewright.engine.ids import instance_of
from statewright.engine.recorder import Changes, EffectRow, InboxRow, InstanceRow, Lease, TimerRow

_CONSTANT = frozenset({"id", "definition", "version", "started_at", "digest", "parent"})
"""What an instance keeps for life."""

LOCK_SPACE = 0x53547772
"""The space of our advisory locks; the key in it is the event table's oid: stores in one database don't meet."""


def _insert(table: str, row: type[Any], order: str) -> str:
    names = columns(row)
    arrays = ", ".join(["%s"] * len(row._fields))
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM unnest({arrays}) WITH ORDINALITY"
        f" AS given({names}, place) ORDER BY {order}"
    )


def _set(names: Sequence[str]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in names)


_EVENTS = f"""WITH turn AS MATERIALIZED (
        SELECT pg_advisory_xact_lock({LOCK_SPACE}::bigint << 32 | 'stored_events'::regclass::oid::bigint))
    INSERT INTO stored_events (originator_id, originator_version, topic, state)
    SELECT originator_id, originator_version, topic, state
    FROM turn, unnest(%s, %s, %s, %s) WITH ORDINALITY AS given(originator_id, originator_version, topic, state, place)
    ORDER BY place RETURNING notification_id"""
_INBOX = _insert("inbox", InboxRow, "instance_id, source, event_id")
_INSTANCES = (
    f"{_insert('instances', InstanceRow, 'id')} ON CONFLICT (id) DO UPDATE SET "
    f"{_set([name for name in InstanceRow._fields if name not in _CONSTANT])}"
)
_TIMERS_CLEARED = (
    "DELETE FROM timers USING unnest(%s, %s) AS given(instance_id, timer_id)"
    " WHERE timers.instance_id = given.instance_id AND timers.timer_id = given.timer_id"
)
_TIMERS_SET = (
    f"{_insert('timers', TimerRow, 'instance_id, timer_id')} ON CONFLICT (instance_id, timer_id) DO UPDATE SET "
    f"{_set([name for name in TimerRow._fields if name not in ('instance_id', 'timer_id')])}"
)
_CLOSED = (
    "DELETE FROM timers WHERE instance_id = ANY(%s)",
    f"UPDATE effects SET state = 'cancelled' WHERE {OPEN} AND {TRANSIENT} AND instance_id = ANY(%s)",
)
_EFFECTS = _insert("effects", EffectRow, "place")
_EFFECTS_ENDED = (
    "UPDATE effects SET state = given.state, error = given.error"
    " FROM unnest(%s, %s, %s, %s) AS given(state, error, effect_id, instance_id)"
    " WHERE effects.instance_id = given.instance_id AND effects.effect_id = given.effect_id"
)
_FENCE = "SELECT require_leases(%s, %s, %s)"


def write(
    cursor: psycopg.Cursor[tuple[Any, ...]], events: Sequence[StoredEvent], changes: Changes, leases: Sequence[Lease]
) -> None:
    """Send all rows within the transaction that is open; afterwards `cursor` has the positions of `events`, if any."""
    if leases:
        names, owners, epochs, _ = columns_of(Lease, leases)
        _execute(cursor, _FENCE, (names, owners, epochs))
    for statement, row, rows in (
        (_INBOX, InboxRow, changes.inbox),
        (_INSTANCES, InstanceRow, changes.instances),
    ):
        if rows:
            _execute(cursor, statement, columns_of(row, rows))
    if changes.timers_cleared:
        _execute(cursor, _TIMERS_CLEARED, [Texts(column) for column in zip(*changes.timers_cleared, strict=True)])
    if changes.timers_set:
        _execute(cursor, _TIMERS_SET, columns_of(TimerRow, changes.timers_set))
    if changes.instances_closed:
        for statement in _CLOSED:
            _execute(cursor, statement, (Texts(changes.instances_closed),))
    if changes.effects_requested:
        _execute(cursor, _EFFECTS, columns_of(EffectRow, changes.effects_requested))
    if changes.effects_ended:
        ended = [Texts(column) for column in zip(*changes.effects_ended, strict=True)]
        _execute(cursor, _EFFECTS_ENDED, (*ended, Texts([instance_of(one[2]) for one in changes.effects_ended])))
    if events:
        _execute(cursor, _EVENTS, event_columns(events))


def event_columns(events: Sequence[StoredEvent]) -> tuple[Texts, Integers, Texts, Blobs]:
    """The columns of stored events or snapshots."""
    return (
        Texts([event.originator_id for event in events]),
        Integers([event.originator_version for event in events]),
        Texts([event.topic for event in events]),
        Blobs([event.state for event in events]),
    )


def _execute(cursor: psycopg.Cursor[tuple[Any, ...]], statement: str, values: Sequence[Any]) -> None:
    cursor.execute(statement.encode(), values, prepare=True)
