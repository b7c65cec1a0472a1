"""One transaction as one SQL statement.

`INSERT INTO batch VALUES (...)` hands over the rows of all tables, each table's as one JSON array, and a trigger on
that view spreads them. Why: Python's `sqlite3` gives up the interpreter's lock at every step of every statement, and
takes it back only when the event loop's thread lets it. A hundred events as single rows are a thousand such waits; as
one statement they are one, and the loop's thread decides the next batch meanwhile. The statement is a transaction
of its own, so there is no BEGIN or COMMIT to wait for either.

Invariants: what comes back is what went in, to the byte. So states and digests, which may hold any bytes, travel
beside the JSON as one blob each; texts with a NUL, which JSON can't carry into SQLite, are refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from eventsourcing.persistence import DataError, StoredEvent

from statewright.adapters.sqlite.schema import OPEN, TRANSIENT, columns
from statewright.engine.ids import instance_of
from statewright.engine.recorder import Changes, EffectRow, InboxRow, InstanceRow, TimerRow, last_ends
from statewright.engine.steps import StepRow

_DIGEST_BYTES = 16
_CONSTANT = frozenset({"id", "started_at", "parent"})
"""What an instance keeps for life."""

# SQLite rewrites every index on a column that an UPDATE names, changed or not: so the indexed status is set apart, and
# only where it differs.
UPDATED = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in InstanceRow._fields if name not in {*_CONSTANT, "status"}
)
TIMERS_REPLACED = "ON CONFLICT (instance_id, timer_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in TimerRow._fields if name not in {"instance_id", "timer_id"}
)
_BEGINS = "excluded.status IN ('pending', 'running')"
STEPS_REPLACED = (
    "ON CONFLICT (instance_id, step) DO UPDATE SET status = excluded.status, sequence = excluded.sequence, "
    + ", ".join(
        f"{name} = iif({_BEGINS}, excluded.{name}, coalesce(excluded.{name}, {name}))"
        for name in ("started_at", "ended_at")
    )
)
"""As `engine/steps.py` says it (`after`)."""

_INPUTS = (
    "position", "events", "states", "inbox", "digests", "instances", "statuses", "timers_cleared", "timers_set",
    "effects_requested", "effects_ended", "instances_closed", "steps",
)  # fmt: skip

INSERT = f"INSERT INTO batch VALUES ({', '.join('?' * len(_INPUTS))})"


def prepare(connection: sqlite3.Connection) -> None:
    """Make the view and its trigger, which only `connection` sees and which go when it closes."""
    connection.execute(f"CREATE TEMP VIEW batch AS SELECT {', '.join(f'NULL AS {name}' for name in _INPUTS)}")
    connection.execute(
        f"CREATE TEMP TRIGGER write_batch INSTEAD OF INSERT ON batch BEGIN {';'.join(_statements())}; END"
    )


def write(connection: sqlite3.Connection, position: int, events: Sequence[StoredEvent], changes: Changes) -> None:
    """Write all rows at once; the first event gets `position`, the others those after it. Raises `DataError`."""
    connection.execute(INSERT, inputs(position, events, changes))


def inputs(position: int, events: Sequence[StoredEvent], changes: Changes) -> tuple[Any, ...]:
    """The parameters of `INSERT`; the first event gets `position`, the others those after it.

    Raises `DataError` for what can't be stored as it is.
    """
    rows, states = _located(events)
    inbox = changes.inbox
    return (
        position,
        _json(rows),
        states,
        _json([row[:4] for row in inbox]),
        joined_digests(inbox),
        _json(changes.instances),
        _json([(row.id, row.status) for row in changes.instances]),
        _json(changes.timers_cleared),
        _json(changes.timers_set),
        _json(changes.effects_requested),
        _json([(*ended, instance_of(ended[2])) for ended in last_ends(changes.effects_ended)]),
        _json([(instance_id,) for instance_id in changes.instances_closed]),
        _json(changes.steps),
    )


def joined_digests(inbox: Sequence[InboxRow]) -> bytes:
    """The rows' digests, one after another. Raises `DataError` unless each has its 16 bytes."""
    digests = b"".join([row.digest for row in inbox])
    if len(digests) != _DIGEST_BYTES * len(inbox):
        raise DataError(f"expected digests of {_DIGEST_BYTES} bytes, got {sorted({len(r.digest) for r in inbox})}")
    return digests


def changes_end(state: str, ended: str) -> str:
    """A condition: `ended` is to take the place of `state`. (If both are ends, the schema's trigger objects.)"""
    return f"{state} <> {ended} AND NOT ({ended} = 'cancelled' AND {state} IN ('done', 'failed'))"


def _statements() -> Iterable[str]:
    # key is a row's index in its array, value the row. A loop over a JSON array keeps its order.
    state = f"substr(NEW.states, {_cell(3)}, {_cell(4)})"
    yield (
        "INSERT INTO stored_events (id, originator_id, originator_version, topic, state)"
        f" SELECT NEW.position + key, {_cells(3)}, iif({_cell(5)}, CAST({state} AS TEXT), {state})"
        " FROM json_each(NEW.events)"
    )
    yield (
        f"INSERT INTO inbox ({columns(InboxRow)}) SELECT {_cells(4)},"
        f" substr(NEW.digests, {_DIGEST_BYTES} * key + 1, {_DIGEST_BYTES}) FROM json_each(NEW.inbox)"
    )
    yield (
        f"INSERT INTO instances ({columns(InstanceRow)}) SELECT {_cells(len(InstanceRow._fields))}"
        f" FROM json_each(NEW.instances) WHERE true {UPDATED}"
    )
    yield (
        f"UPDATE instances SET status = {_cell(1)} FROM json_each(NEW.statuses) AS given"
        f" WHERE instances.id = {_cell(0)} AND instances.status <> {_cell(1)}"
    )
    yield f"DELETE FROM timers WHERE (instance_id, timer_id) IN (SELECT {_cells(2)} FROM json_each(NEW.timers_cleared))"
    yield (
        f"INSERT INTO timers ({columns(TimerRow)}) SELECT {_cells(len(TimerRow._fields))}"
        f" FROM json_each(NEW.timers_set) WHERE true {TIMERS_REPLACED}"
    )
    closed = f"instance_id IN (SELECT {_cell(0)} FROM json_each(NEW.instances_closed))"
    yield f"DELETE FROM timers WHERE {closed}"
    yield f"UPDATE effects SET state = 'cancelled' WHERE {OPEN} AND {TRANSIENT} AND {closed}"
    yield (
        f"INSERT INTO effects ({columns(EffectRow)}) SELECT {_cells(len(EffectRow._fields))}"
        " FROM json_each(NEW.effects_requested)"
    )
    yield (
        f"UPDATE effects SET state = {_cell(0)}, error = {_cell(1)} FROM json_each(NEW.effects_ended) AS given"
        f" WHERE effects.instance_id = {_cell(3)} AND effects.effect_id = {_cell(2)}"
        f" AND {changes_end('effects.state', _cell(0))}"
    )
    yield (
        f"INSERT INTO steps ({columns(StepRow)}) SELECT {_cells(len(StepRow._fields))}"
        f" FROM json_each(NEW.steps) WHERE true {STEPS_REPLACED}"
    )


def _cell(index: int) -> str:
    return f"json_extract(value, '$[{index}]')"


def _cells(count: int) -> str:
    return ", ".join(_cell(index) for index in range(count))


def _located(events: Sequence[StoredEvent]) -> tuple[list[tuple[object, ...]], bytes]:
    """Each event with the place of its state in all states joined (from 1, as SQL counts), and whether it is text."""
    rows: list[tuple[object, ...]] = []
    start = 1
    for event in events:
        state = event.state
        rows.append((event.originator_id, event.originator_version, event.topic, start, len(state), is_text(state)))
        start += len(state)
    return rows, b"".join([event.state for event in events])


def is_text(state: bytes) -> bool:
    if state.isascii():
        return True
    try:
        state.decode()
    except UnicodeDecodeError:
        return False
    return True


_encode = msgspec.json.Encoder().encode


def _json(rows: Sequence[Sequence[Any]]) -> str | None:
    """The rows as a JSON array, None (which has no elements either) for none."""
    if not rows:
        return None
    encoded = _encode(rows)
    if b"\\u0000" in encoded:
        refuse_nul(rows)
    return encoded.decode()


def refuse_nul(rows: Sequence[Sequence[Any]]) -> None:
    """Raise `DataError` for a text with a NUL, where SQLite's JSON (and much else) would end it."""
    for row in rows:
        for cell in row:
            if isinstance(cell, str) and "\0" in cell:
                raise DataError(f"expected text without NUL characters, got {cell[:100]!r}")
