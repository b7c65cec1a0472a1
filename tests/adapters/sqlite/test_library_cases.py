"""The `eventsourcing` library's own persistence test cases, run on our recorder, factory and file.

Ids are texts here, not UUIDs: an instance's id is chosen by whoever starts it, so the library's cases are run
with texts. Its case for subscriptions does not apply: as the library's SQLite recorder, ours has none (followers are
told in process).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase
from uuid import uuid4

from eventsourcing.persistence import AggregateRecorder
from eventsourcing.sqlite import SQLiteTrackingRecorder
from eventsourcing.tests import persistence as library
from eventsourcing.utils import Environment

from statewright.adapters.sqlite.factory import Factory
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder


class OnFile(TestCase):
    """Each test has a fresh file."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.env = environment(Path(folder.name) / "store.db")
        self.made = Factory(self.env)
        self.addCleanup(self.made.close)

    def new_originator_id(self) -> str:
        return str(uuid4())


def environment(path: Path) -> Environment:
    settings = {"PERSISTENCE_MODULE": "statewright.adapters.sqlite.factory", "SQLITE_DBNAME": str(path)}
    return Environment(env=settings)


class TestApplicationRecorder(OnFile, library.ApplicationRecorderTestCase[SQLiteInstanceRecorder]):
    def create_recorder(self) -> SQLiteInstanceRecorder:
        return self.made.application_recorder()


class TestProcessRecorder(OnFile, library.ProcessRecorderTestCase):
    def create_recorder(self) -> SQLiteInstanceRecorder:
        return self.made.process_recorder()


class TestNonInterleavingPositions(OnFile, library.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> SQLiteInstanceRecorder:
        return self.made.application_recorder()


class TestTrackingOfTheInstanceRecorder(OnFile, library.TrackingRecorderTestCase):
    def create_recorder(self) -> SQLiteInstanceRecorder:
        return self.made.application_recorder()


class TestTrackingRecorder(OnFile, library.TrackingRecorderTestCase):
    """The library's recorder, as a projection would use it beside the log."""

    def create_recorder(self) -> SQLiteTrackingRecorder:
        return self.made.tracking_recorder()


class TestSnapshotRecorder(OnFile, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.made.aggregate_recorder("snapshots")


class Tracking(SQLiteTrackingRecorder):
    """A tracking recorder of somebody's own."""


class TestFactory(OnFile, library.InfrastructureFactoryTestCase[Factory]):
    def setUp(self) -> None:
        OnFile.setUp(self)
        library.InfrastructureFactoryTestCase.setUp(self)
        self.addCleanup(self.factory.close)

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return SQLiteInstanceRecorder

    def expected_application_recorder_class(self) -> type[SQLiteInstanceRecorder]:
        return SQLiteInstanceRecorder

    def expected_tracking_recorder_class(self) -> type[SQLiteTrackingRecorder]:
        return SQLiteTrackingRecorder

    def tracking_recorder_subclass(self) -> type[SQLiteTrackingRecorder]:
        return Tracking

    def expected_process_recorder_class(self) -> type[SQLiteInstanceRecorder]:
        return SQLiteInstanceRecorder
