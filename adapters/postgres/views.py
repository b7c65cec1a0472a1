"""Read models in the store's own database, each with its position in one transaction with its rows.

The position is kept in the `eventsourcing` library's table `notification_tracking`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
from eventsourcing.persistence import IntegrityError

from statewright.adapters.postgres.arrays import Texts
from statewright.adapters.postgres.datastore import Connection, Datastore
from statewright.projections.metrics import Figures, Key, Run

METRICS = "metrics"
"""The name under which the position is tracked."""

_FIGURES = (
    "INSERT INTO metrics_figures (definition, version, figures) SELECT * FROM unnest(%s, %s, %s)"
    " ON CONFLICT (definition, version) DO UPDATE SET figures = excluded.figures"
)
_RUNS = (
    "INSERT INTO metrics_runs (instance_id, run) SELECT * FROM unnest(%s, %s)"
    " ON CONFLICT (instance_id) DO UPDATE SET run = excluded.run"
)
_BEGIN = "INSERT INTO notification_tracking (application_name, notification_id) VALUES (%s, 0) ON CONFLICT DO NOTHING"
_LOCK = "SELECT notification_id FROM notification_tracking WHERE application_name = %s FOR UPDATE"
_TRACK = "UPDATE notification_tracking SET notification_id = %s WHERE application_name = %s"

_encode = msgspec.json.Encoder().encode
_decode_figures = msgspec.json.Decoder(Figures).decode
_decode_run = msgspec.json.Decoder(Run).decode


class PostgresMetricsView:
    """`MetricsView` in the database of `datastore`."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    @contextmanager
    def snapshot(self) -> Iterator[_Snapshot]:
        """One read transaction, which sees what was committed when it began, and holds nobody up."""
        with self._datastore.read() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield _Snapshot(connection)
            finally:
                connection.execute("ROLLBACK")

    def save(self, *, after: int, position: int, figures: Mapping[Key, Figures], runs: Mapping[str, Run]) -> None:
        with self._datastore.write() as cursor:
            stored = _locked_position(cursor)
            if stored != after:
                raise IntegrityError(f"expected the metrics at position {after} of the log, but they are at {stored}")
            rows = sorted((*key, _encode(one).decode()) for key, one in figures.items())
            if rows:
                cursor.execute(_FIGURES, [Texts(column) for column in zip(*rows, strict=True)])
            if runs:
                ids = sorted(runs)
                cursor.execute(_RUNS, (Texts(ids), Texts([_encode(runs[one]).decode() for one in ids])))
            cursor.execute(_TRACK, (position, METRICS))

    def clear(self) -> None:
        with self._datastore.write() as cursor:
            _locked_position(cursor)
            cursor.execute("DELETE FROM metrics_figures")
            cursor.execute("DELETE FROM metrics_runs")
            cursor.execute(_TRACK, (0, METRICS))


class _Snapshot:
    """`MetricsSnapshot` within the transaction that is open on `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def position(self) -> int:
        query = "SELECT max(notification_id) FROM notification_tracking WHERE application_name = %s"
        row = self._connection.execute(query, (METRICS,)).fetchone()
        return (row[0] if row else 0) or 0

    def figures(self) -> dict[Key, Figures]:
        rows = self._connection.execute("SELECT definition, version, figures FROM metrics_figures")
        return {(definition, version): _decode_figures(figures) for definition, version, figures in rows}

    def runs(self, instance_ids: Collection[str]) -> dict[str, Run]:
        query = "SELECT instance_id, run FROM metrics_runs WHERE instance_id = ANY(%s)"
        return {one: _decode_run(run) for one, run in self._connection.execute(query, (Texts(instance_ids),))}


def _locked_position(cursor: psycopg.Cursor[Any]) -> int:
    """The position, which is this transaction's to change."""
    cursor.execute(_BEGIN, (METRICS,))
    cursor.execute(_LOCK, (METRICS,))
    return int(cursor.fetchall()[0][0])
