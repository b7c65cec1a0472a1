"""Read models in the store's own SQLite file, each with its position in one transaction with its rows.

The position is kept in the `eventsourcing` library's table `tracking`. The tables of a read model are made when
something is first written to it: a store that nobody has served has none, and reads as empty.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import msgspec
from eventsourcing.persistence import IntegrityError

from statewright.adapters.sqlite.datastore import Datastore
from statewright.projections.metrics import Figures, Key, Run

METRICS = "metrics"
"""The name under which the position is tracked."""

_TABLES = (
    """CREATE TABLE IF NOT EXISTS metrics_figures (
        definition TEXT NOT NULL,
        version TEXT NOT NULL,
        figures TEXT NOT NULL,
        PRIMARY KEY (definition, version)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS metrics_runs (
        instance_id TEXT NOT NULL PRIMARY KEY,
        run TEXT NOT NULL) WITHOUT ROWID""",
)
_TRACK = (
    "INSERT INTO tracking (application_name, notification_id) VALUES (?, ?)"
    " ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id"
)
_IDS_MAX = 500
"""Ids asked for in one statement."""

_encode = msgspec.json.Encoder().encode
_decode_figures = msgspec.json.Decoder(Figures).decode
_decode_run = msgspec.json.Decoder(Run).decode


class SQLiteMetricsView:
    """`MetricsView` in the file of `datastore`."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._made = False

    @contextmanager
    def snapshot(self) -> Iterator[_Snapshot]:
        """One read transaction: with WAL it sees what was committed when it began, and holds nobody up."""
        with self._datastore.read() as connection:
            connection.execute("BEGIN")
            try:
                yield _Snapshot(connection)
            finally:
                connection.execute("ROLLBACK")

    def save(self, *, after: int, position: int, figures: Mapping[Key, Figures], runs: Mapping[str, Run]) -> None:
        with self._datastore.write() as connection:
            self._make_tables(connection)
            stored = _position(connection)
            if stored != after:
                raise IntegrityError(f"expected the metrics at position {after} of the log, but they are at {stored}")
            connection.executemany(
                "INSERT OR REPLACE INTO metrics_figures (definition, version, figures) VALUES (?, ?, ?)",
                [(*key, _encode(one).decode()) for key, one in figures.items()],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO metrics_runs (instance_id, run) VALUES (?, ?)",
                [(instance_id, _encode(run).decode()) for instance_id, run in runs.items()],
            )
            connection.execute(_TRACK, (METRICS, position))
        self._made = True

    def clear(self) -> None:
        with self._datastore.write() as connection:
            self._make_tables(connection)
            connection.execute("DELETE FROM metrics_figures")
            connection.execute("DELETE FROM metrics_runs")
            connection.execute("DELETE FROM tracking WHERE application_name = ?", (METRICS,))

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        if not self._made:
            for statement in _TABLES:
                connection.execute(statement)


class _Snapshot:
    """`MetricsSnapshot` within the transaction that is open on `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        query = "SELECT count(*) FROM sqlite_schema WHERE name = 'metrics_runs'"
        self._exists = bool(connection.execute(query).fetchone()[0])

    @property
    def position(self) -> int:
        return _position(self._connection) if self._exists else 0

    def figures(self) -> dict[Key, Figures]:
        if not self._exists:
            return {}
        rows = self._connection.execute("SELECT definition, version, figures FROM metrics_figures")
        return {(definition, version): _decode_figures(figures) for definition, version, figures in rows}

    def runs(self, instance_ids: Collection[str]) -> dict[str, Run]:
        if not self._exists:
            return {}
        wanted, found = list(instance_ids), dict[str, Run]()
        for start in range(0, len(wanted), _IDS_MAX):
            page = wanted[start : start + _IDS_MAX]
            query = f"SELECT instance_id, run FROM metrics_runs WHERE instance_id IN ({','.join('?' * len(page))})"
            found |= {instance_id: _decode_run(run) for instance_id, run in self._connection.execute(query, page)}
        return found


def _position(connection: sqlite3.Connection) -> int:
    query = "SELECT max(notification_id) FROM tracking WHERE application_name = ?"
    return connection.execute(query, (METRICS,)).fetchone()[0] or 0
