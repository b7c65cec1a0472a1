"""One transaction in as few statements as may be: each takes all rows of its table at once.

Python's `sqlite3` gives up the interpreter's lock at every step of every statement, and takes it back only when
the event loop's thread lets it: a hundred events as single rows are a thousand such waits, as statements of many rows
they are eight. Parameters go into SQLite as they are, which costs half of what it would as JSON arrays that a trigger
spreads.

A few rows go in one by one, by `executemany`: with few there is little to wait for, and less to build. What is written
is the same to the byte: the contract suite runs on both.

Invariants: what comes back is what went in, to the byte. Texts with a NUL, where SQL functions would end them, are
refused.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import msgspec
from eventsourcing.persistence import DataError, StoredEvent

from statewright.adapters.sqlite.schema import OPEN, TRANSIENT, columns
from statewright.engine.ids import instance_of
from statewright.engine.recorder import Changes, EffectRow, InboxRow, InstanceRow, TimerRow, last_ends
from statewright.engine.steps import StepRow

FEW = 8
"""Up to how many rows go in one by one."""
_SIZES = (*(size * 2**octave for octave in range(2, 7) for size in (4, 5, 6, 7)), 512)
"""How many rows a statement takes: what is missing is filled up with NULLs, so that few are ever compiled."""
_NULL = float("nan")
"""Bound, SQLite makes NULL of it (https://sqlite.org/floatingpoint.html). For None, `sqlite3` looks first whether
somebody has registered an adapter, at the cost of three numbers."""
_DIGEST_BYTES = 16
_CONSTANT = frozenset({"id", "started_at", "parent"})
"""What an instance keeps for life."""

# SQLite rewrites every index on a column that an UPDATE names, changed or not: so the indexed status is set apart, and
# only where it differs.
_UPDATED = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in InstanceRow._fields if name not in {*_CONSTANT, "status"}
)
_TIMERS_REPLACED = "ON CONFLICT (instance_id, timer_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in TimerRow._fields if name not in {"instance_id", "timer_id"}
)
_BEGINS = "excluded.status IN ('pending', 'running')"
_STEPS_REPLACED = (  # As `engine/steps.py` says it (`after`).
    "ON CONFLICT (instance_id, step) DO UPDATE SET status = excluded.status, sequence = excluded.sequence, "
    + ", ".join(
        f"{name} = iif({_BEGINS}, excluded.{name}, coalesce(excluded.{name}, {name}))"
        for name in ("started_at", "ended_at")
    )
)


class _Statement:
    """One statement for each of some rows: `one` has a `?` for each of its cells; `many` is the same of all the rows
    that stand where it says `{rows}`, which are named `column1`, `column2`, ... and none where `column1` is NULL."""

    def __init__(self, width: int, one: str, many: str) -> None:
        self.one = one
        self._width = width
        self._many = many
        self._of_size = cache(self._sized)

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]], few: int) -> None:
        if len(rows) <= few:
            connection.executemany(self.one, rows)
            return
        for first in range(0, len(rows), _SIZES[-1]):
            part = rows[first : first + _SIZES[-1]]
            size = _SIZES[bisect_left(_SIZES, len(part))]
            cells = list(chain.from_iterable(part))
            cells.extend([_NULL] * (self._width * (size - len(part))))
            connection.execute(self._of_size(size), cells)

    def _sized(self, size: int) -> str:
        row = f"({', '.join('?' * self._width)})"
        return self._many.format(rows=f"(VALUES {', '.join([row] * size)})")


def _insert(table: str, names: str, conflict: str = "") -> _Statement:
    width = names.count(",") + 1
    into = f"INSERT INTO {table} ({names})"
    return _Statement(
        width,
        f"{into} VALUES ({', '.join('?' * width)}) {conflict}",
        f"{into} SELECT * FROM {{rows}} WHERE column1 IS NOT NULL {conflict}",
    )


def _changes_end(state: str, ended: str) -> str:
    """A condition: `ended` is to take the place of `state`. (If both are ends, the schema's trigger objects.)"""
    return f"{state} <> {ended} AND NOT ({ended} = 'cancelled' AND {state} IN ('done', 'failed'))"


_EVENTS = _insert("stored_events", "id, originator_id, originator_version, topic, state")
_INBOX = _insert("inbox", columns(InboxRow))
_INSTANCES = _insert("instances", columns(InstanceRow), _UPDATED)
_STATUSES = _Statement(
    2,
    "UPDATE instances SET status = ?2 WHERE id = ?1 AND status <> ?2",
    "UPDATE instances SET status = column2 FROM {rows} WHERE id = column1 AND status <> column2",
)
_TIMERS_CLEARED = _Statement(
    2,
    "DELETE FROM timers WHERE instance_id = ? AND timer_id = ?",
    "DELETE FROM timers WHERE (instance_id, timer_id) IN (SELECT * FROM {rows})",
)
_TIMERS_SET = _insert("timers", columns(TimerRow), _TIMERS_REPLACED)
_TIMERS_CLOSED = _Statement(
    1, "DELETE FROM timers WHERE instance_id = ?", "DELETE FROM timers WHERE instance_id IN (SELECT * FROM {rows})"
)
_EFFECTS_CLOSED = _Statement(
    1,
    f"UPDATE effects SET state = 'cancelled' WHERE {OPEN} AND {TRANSIENT} AND instance_id = ?",
    f"UPDATE effects SET state = 'cancelled' WHERE {OPEN} AND {TRANSIENT} AND instance_id IN (SELECT * FROM {{rows}})",
)
_EFFECTS_REQUESTED = _insert("effects", columns(EffectRow))
_STEPS = _insert("steps", columns(StepRow), _STEPS_REPLACED)
_EFFECTS_ENDED = _Statement(
    4,
    "UPDATE effects SET state = ?3, error = ?4 WHERE instance_id = ?1 AND effect_id = ?2"
    f" AND {_changes_end('state', '?3')}",
    "UPDATE effects SET state = column3, error = column4 FROM {rows}"
    f" WHERE instance_id = column1 AND effect_id = column2 AND {_changes_end('state', 'column3')}",
)


def write(
    connection: sqlite3.Connection, position: int, events: Sequence[StoredEvent], changes: Changes, few: int = FEW
) -> None:
    """Write all rows in the transaction that is open; the first event gets `position`, the others those after it.
    Raises `DataError` for what can't be stored as it is."""
    for statement, rows in statements(position, events, changes):
        statement.run(connection, rows, few)


def statements(
    position: int, events: Sequence[StoredEvent], changes: Changes
) -> Iterator[tuple[_Statement, Sequence[Sequence[Any]]]]:
    """What `write` does, in order: each statement and its rows."""
    _check(changes)
    yield (
        _EVENTS,
        [
            (number, event.originator_id, event.originator_version, event.topic, _column(event.state))
            for number, event in enumerate(events, position)
        ],
    )
    if changes.inbox:
        yield _INBOX, changes.inbox
    if changes.instances:
        yield _INSTANCES, changes.instances
        same = changes.statuses_kept
        if statuses := [(row.id, row.status) for row in changes.instances if row.id not in same]:
            yield _STATUSES, statuses
    if changes.timers_cleared:
        yield _TIMERS_CLEARED, changes.timers_cleared
    if changes.timers_set:
        yield _TIMERS_SET, changes.timers_set
    if changes.instances_closed:
        closed = [(instance_id,) for instance_id in changes.instances_closed]
        yield _TIMERS_CLOSED, closed
        yield _EFFECTS_CLOSED, closed
    if changes.effects_requested:
        yield _EFFECTS_REQUESTED, changes.effects_requested
    if changes.effects_ended:
        ends = last_ends(changes.effects_ended)
        yield _EFFECTS_ENDED, [(instance_of(ended), ended, state, error) for state, error, ended in ends]
    if changes.steps:
        yield _STEPS, changes.steps


def _check(changes: Changes) -> None:
    if wrong := {len(row.digest) for row in changes.inbox} - {_DIGEST_BYTES}:
        raise DataError(f"expected digests of {_DIGEST_BYTES} bytes, got {sorted(wrong)}")
    for rows in (
        changes.inbox,
        changes.instances,
        changes.timers_set,
        changes.effects_requested,
        changes.effects_ended,
        changes.steps,
    ):
        _refuse_nul(rows)


_encode = msgspec.json.Encoder().encode


def _refuse_nul(rows: Sequence[Sequence[Any]]) -> None:
    """Raise `DataError` for a text with a NUL, where SQL functions (and much else) would end it."""
    if not rows or b"\\u0000" not in _encode(rows):  # By far the fastest way to look through all texts of all rows.
        return
    for row in rows:  # A text that holds JSON with an escaped NUL has none itself.
        for cell in row:
            if isinstance(cell, str) and "\0" in cell:
                raise DataError(f"expected text without NUL characters, got {cell[:100]!r}")


def is_text(state: bytes) -> bool:
    if state.isascii():
        return True
    try:
        state.decode()
    except UnicodeDecodeError:
        return False
    return True


def _column(state: bytes) -> str | bytes:
    """JSON is kept as text, which SQL can read; a cipher's bytes as they are."""
    return state.decode() if is_text(state) else state
