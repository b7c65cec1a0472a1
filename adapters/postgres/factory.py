"""What the `eventsourcing` library makes its recorders with, when PERSISTENCE_MODULE names this module."""

from __future__ import annotations

from typing import TypeVar

from eventsourcing import persistence, postgres
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from statewright.adapters.postgres.datastore import Datastore
from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
from statewright.adapters.postgres.snapshots import PostgresSnapshotRecorder
from statewright.engine.recorder import PARTITIONS_DEFAULT

URL = "STATEWRIGHT_POSTGRES_URL"
READ_ONLY = "STATEWRIGHT_POSTGRES_READ_ONLY"

_TRACKING = "eventsourcing.postgres:PostgresTrackingRecorder"

T = TypeVar("T", bound=postgres.PostgresTrackingRecorder)


class Factory(persistence.InfrastructureFactory[postgres.PostgresTrackingRecorder]):
    """The library's factory on our datastore. Environment: STATEWRIGHT_POSTGRES_URL (with its password: not to be
    shown), STATEWRIGHT_POSTGRES_READ_ONLY ("y"), STATEWRIGHT_PARTITIONS (of a new store), CREATE_TABLE, and the
    library's own."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        read_only = strtobool(self.env.get(READ_ONLY, "n"))
        self.datastore = Datastore(self.env.get(URL, ""), read_only=read_only)
        self._partitions = int(self.env.get("STATEWRIGHT_PARTITIONS", str(PARTITIONS_DEFAULT)))
        self._makes_tables = strtobool(self.env.get("CREATE_TABLE") or "yes") and not read_only

    def application_recorder(self) -> PostgresInstanceRecorder:
        recorder = PostgresInstanceRecorder(self.datastore, partitions=self._partitions)
        if self._makes_tables:
            recorder.create_table()
        return recorder

    def process_recorder(self) -> PostgresInstanceRecorder:
        return self.application_recorder()

    def aggregate_recorder(self, purpose: str = "events") -> persistence.AggregateRecorder:
        events = self.application_recorder()
        return events if purpose == "events" else PostgresSnapshotRecorder(self.datastore)

    def tracking_recorder(self, tracking_recorder_class: type[T] | None = None) -> T:
        self.application_recorder()  # A store's own tables come first: they make the database a store.
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        found: type[T] = tracking_recorder_class or resolve_topic(topic or _TRACKING)
        recorder = found(datastore=self.datastore, tracking_table_name="notification_tracking")
        if self._makes_tables:
            recorder.create_table()
        return recorder

    def close(self) -> None:
        self.datastore.close()
