"""A real SQLite store whose recorder fails when told to: before the commit, or after it, when the answer is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent

from statewright.adapters.sqlite import factory
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.adapters.sqlite.store import SQLiteStore
from statewright.engine.recorder import Changes


class FaultyRecorder(SQLiteInstanceRecorder):
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
        positions = super().insert_events(stored_events, changes=changes, **kwargs)
        if self.after and (error := self.after.popleft()) is not None:
            raise error
        return positions


class Factory(factory.Factory):
    """Found by the `eventsourcing` library through PERSISTENCE_MODULE."""

    def application_recorder(self) -> SQLiteInstanceRecorder:
        recorder = FaultyRecorder(self.datastore)
        recorder.before, recorder.after, recorder.batches = deque(), deque(), []
        return recorder


class FaultyStore(SQLiteStore):
    """A SQLite store with that recorder."""

    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, "PERSISTENCE_MODULE": __name__}
