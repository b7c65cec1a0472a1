"""Events of one aggregate, and snapshots: the library's simplest recorder, without its retries.

The library tries again ten times in two seconds; here it is the engine that says what is worth trying again, and the
writing thread has other work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import AggregateRecorder, StoredEvent

from statewright.adapters.postgres.batch import event_columns
from statewright.adapters.postgres.datastore import Datastore

_ANY = 2**63 - 1


class PostgresSnapshotRecorder(AggregateRecorder):
    """Snapshots in table `stored_snapshots`, which comes with the store."""

    def __init__(self, datastore: Datastore) -> None:
        self.datastore = datastore

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        insert = (
            "INSERT INTO stored_snapshots (originator_id, originator_version, topic, state)"
            " SELECT * FROM unnest(%s, %s, %s, %s)"
        )
        if stored_events:
            with self.datastore.write(durable=False) as cursor:  # Only to load faster: the facts are durable.
                cursor.execute(insert, event_columns(stored_events))
        return None

    def select_events(
        self,
        originator_id: Any,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        return read_events(self.datastore, "stored_snapshots", originator_id, gt, lte, desc, limit)


def read_events(
    datastore: Datastore,
    table: str,
    originator_id: Any,
    gt: int | None,
    lte: int | None,
    desc: bool,
    limit: int | None,
) -> list[StoredEvent]:
    """What `select_events` of a recorder says, of one table."""
    query = (
        f"SELECT originator_id, originator_version, topic, state FROM {table}"
        " WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s"
        f" ORDER BY originator_version {'DESC' if desc else 'ASC'} LIMIT %s"
    )
    values = (originator_id, -1 if gt is None else gt, _ANY if lte is None else lte, _ANY if limit is None else limit)
    with datastore.read() as connection:
        rows = connection.execute(query.encode(), values, prepare=True, binary=True)
        return [StoredEvent(*row) for row in rows]
