"""What the `eventsourcing` library makes its recorders with, when PERSISTENCE_MODULE names this module."""

from __future__ import annotations

from eventsourcing import sqlite
from eventsourcing.persistence import AggregateRecorder
from eventsourcing.utils import Environment, EnvType

from statewright.adapters.sqlite.datastore import Datastore
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.engine.recorder import PARTITIONS_DEFAULT


class Factory(sqlite.SQLiteFactory):
    """The library's factory on our datastore. Environment: SQLITE_DBNAME (a file's path), SQLITE_MODE ("rwc",
    "rw", "ro" or "immutable"), STATEWRIGHT_PARTITIONS (of a new file), CREATE_TABLE, and the library's own."""

    datastore: Datastore

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self.datastore.close()
        self.datastore = Datastore(self.env.get("SQLITE_DBNAME", ""), mode=self.env.get("SQLITE_MODE", "rwc"))
        self._partitions = int(self.env.get("STATEWRIGHT_PARTITIONS", str(PARTITIONS_DEFAULT)))

    def application_recorder(self) -> SQLiteInstanceRecorder:
        return self._instance_recorder()

    def process_recorder(self) -> SQLiteInstanceRecorder:
        return self._instance_recorder()

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        events = self._instance_recorder()
        return events if purpose == "events" else super().aggregate_recorder(purpose)

    def tracking_recorder(
        self, tracking_recorder_class: type[sqlite.SQLiteTrackingRecorder] | None = None
    ) -> sqlite.SQLiteTrackingRecorder:
        self._instance_recorder()  # A store's own tables come first: they make the file a store.
        return super().tracking_recorder(tracking_recorder_class)

    def _instance_recorder(self) -> SQLiteInstanceRecorder:
        recorder = SQLiteInstanceRecorder(self.datastore, partitions=self._partitions)
        if self.env_create_table():
            recorder.create_table()
        return recorder
