"""Real stores whose recorders fail when told to: before the commit, or after it, when the answer is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from eventsourcing.persistence import InfrastructureFactory, StoredEvent

from statewright.adapters.postgres import factory as postgres
from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
from statewright.adapters.postgres.store import PostgresStore
from statewright.adapters.sqlite import factory as sqlite
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.adapters.sqlite.store import SQLiteStore
from statewright.engine.recorder import Changes, InstanceRecorder


class Faults(InstanceRecorder):
    """`before` and `after`: what the next calls of `insert_events` raise, instead of writing or after having written;
    None lets one pass."""

    before: deque[Exception | None]
    after: deque[Exception | None]
    batches: list[list[str]]
    """The ids of the instances of each call's facts."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        self.batches.append([str(event.originator_id) for event in stored_events])
        if self.before and (error := self.before.popleft()) is not None:
            raise error
        positions = super().insert_events(stored_events, changes=changes, **kwargs)  # type: ignore[safe-super]
        if self.after and (error := self.after.popleft()) is not None:
            raise error
        return positions


class _FaultySQLite(Faults, SQLiteInstanceRecorder):
    pass


class _FaultyPostgres(Faults, PostgresInstanceRecorder):
    pass


def _ready(recorder: Any) -> Any:
    recorder.before, recorder.after, recorder.batches = deque(), deque(), []
    return recorder


class SQLiteFactory(sqlite.Factory):
    """Found by the `eventsourcing` library through PERSISTENCE_MODULE."""

    def application_recorder(self) -> SQLiteInstanceRecorder:
        recorder: SQLiteInstanceRecorder = _ready(_FaultySQLite(self.datastore))
        return recorder


class PostgresFactory(postgres.Factory):
    """The same on PostgreSQL."""

    def application_recorder(self) -> PostgresInstanceRecorder:
        recorder: PostgresInstanceRecorder = _ready(_FaultyPostgres(self.datastore))
        return recorder


def _naming(factory: type[InfrastructureFactory[Any]]) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": f"{__name__}:{factory.__name__}"}


class _FaultySQLiteStore(SQLiteStore):
    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, **_naming(SQLiteFactory)}


class _FaultyPostgresStore(PostgresStore):
    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, **_naming(PostgresFactory)}


def faulty_store(url: str) -> SQLiteStore | PostgresStore:
    """The store behind `url`, with such a recorder."""
    return _FaultySQLiteStore(url) if url.startswith("sqlite:") else _FaultyPostgresStore(url)
