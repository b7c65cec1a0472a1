"""What the recorder contract needs of an implementation: a fresh store, opened as often as a test likes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from eventsourcing.persistence import StoredEvent

from statewright.adapters.memory.factory import Factory as MemoryFactory
from statewright.adapters.memory.recorder import MemoryInstanceRecorder
from statewright.adapters.postgres import batch as postgres_batch
from statewright.adapters.postgres import factory as postgres
from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
from statewright.adapters.sqlite.factory import Factory
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.engine.recorder import Changes, InstanceRecorder
from tests.postgres_server import new_url


class Harness(ABC):
    """One store. Every recorder that `open` returns has connections of its own and is closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closers: list[Callable[[], None]] = []

    def open(self, **environment: str) -> InstanceRecorder:
        recorder, close = self._open(environment)
        self._closers.append(close)
        return recorder

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()

    @abstractmethod
    def _open(self, environment: dict[str, str]) -> tuple[InstanceRecorder, Callable[[], None]]:
        """A recorder with its tables made, and how it is closed."""

    @abstractmethod
    def uncommitted(
        self, recorder: Any, events: Sequence[StoredEvent], changes: Changes
    ) -> AbstractContextManager[None]:
        """Inside the block `events` and `changes` are written but not committed; after it they are."""


class SQLiteHarness(Harness):
    def _open(self, environment: dict[str, str]) -> tuple[InstanceRecorder, Callable[[], None]]:
        factory = Factory({"SQLITE_DBNAME": str(self.folder / "store.db"), **environment})
        return factory.application_recorder(), factory.close

    @contextmanager
    def uncommitted(
        self, recorder: SQLiteInstanceRecorder, events: Sequence[StoredEvent], changes: Changes
    ) -> Iterator[None]:
        with recorder.datastore.write() as connection:
            recorder._insert_batch(connection, events, changes)
            yield


class SQLiteBatchHarness(SQLiteHarness):
    """Everything goes the way of large batches."""

    def _open(self, environment: dict[str, str]) -> tuple[InstanceRecorder, Callable[[], None]]:
        recorder, close = super()._open(environment)
        assert isinstance(recorder, SQLiteInstanceRecorder)
        recorder.few = 0
        return recorder, close


class MemoryHarness(Harness):
    """All who open it share one recorder, as they would a database."""

    def _open(self, environment: dict[str, str]) -> tuple[InstanceRecorder, Callable[[], None]]:
        factory = MemoryFactory({"MEMORY_NAME": str(self.folder), **environment})
        return factory.application_recorder(), factory.close

    @contextmanager
    def uncommitted(
        self, recorder: MemoryInstanceRecorder, events: Sequence[StoredEvent], changes: Changes
    ) -> Iterator[None]:
        recorder._check(changes)
        yield  # All that is written is written in one go; until then there is nothing to be seen.
        recorder.insert_events(events, changes=changes)


class PostgresHarness(Harness):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = new_url()

    def _open(self, environment: dict[str, str]) -> tuple[InstanceRecorder, Callable[[], None]]:
        made = postgres.Factory({postgres.URL: self.url, **environment})
        return made.application_recorder(), made.close

    @contextmanager
    def uncommitted(
        self, recorder: PostgresInstanceRecorder, events: Sequence[StoredEvent], changes: Changes
    ) -> Iterator[None]:
        with recorder.datastore.write() as cursor:
            postgres_batch.write(cursor, events, changes, ())
            cursor.fetchall()  # The server has done it all.
            yield


IMPLEMENTATIONS: dict[str, type[Harness]] = {
    "sqlite": SQLiteHarness,
    "sqlite in batches": SQLiteBatchHarness,
    "memory": MemoryHarness,
    "postgres": PostgresHarness,
}
