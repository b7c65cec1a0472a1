"""The `eventsourcing` library's own persistence test cases, run on our recorder, factory and a real server.

Ids are texts, as for SQLite (`tests/adapters/sqlite/test_library_cases.py`), and its case for subscriptions does not
apply either: followers are told by the engine.
"""

from __future__ import annotations

from unittest import TestCase
from uuid import uuid4

from eventsourcing.persistence import AggregateRecorder
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.tests import persistence as library
from eventsourcing.utils import Environment

from statewright.adapters.postgres.factory import URL, Factory
from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
from statewright.adapters.postgres.snapshots import PostgresSnapshotRecorder
from tests.postgres_server import new_url


class OnServer(TestCase):
    """Each test has a fresh schema."""

    def setUp(self) -> None:
        settings = {"PERSISTENCE_MODULE": "statewright.adapters.postgres.factory", URL: new_url()}
        self.env = Environment(env=settings)
        self.made = Factory(self.env)
        self.addCleanup(self.made.close)

    def new_originator_id(self) -> str:
        return str(uuid4())


class TestApplicationRecorder(OnServer, library.ApplicationRecorderTestCase[PostgresInstanceRecorder]):
    def create_recorder(self) -> PostgresInstanceRecorder:
        return self.made.application_recorder()


class TestProcessRecorder(OnServer, library.ProcessRecorderTestCase):
    def create_recorder(self) -> PostgresInstanceRecorder:
        return self.made.process_recorder()


class TestNonInterleavingPositions(OnServer, library.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> PostgresInstanceRecorder:
        return self.made.application_recorder()


class TestTrackingOfTheInstanceRecorder(OnServer, library.TrackingRecorderTestCase):
    def create_recorder(self) -> PostgresInstanceRecorder:
        return self.made.application_recorder()


class TestTrackingRecorder(OnServer, library.TrackingRecorderTestCase):
    """The library's recorder, as a projection would use it beside the log."""

    def create_recorder(self) -> PostgresTrackingRecorder:
        return self.made.tracking_recorder()


class TestSnapshotRecorder(OnServer, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.made.aggregate_recorder("snapshots")


class Tracking(PostgresTrackingRecorder):
    """A tracking recorder of somebody's own."""


class TestFactory(OnServer, library.InfrastructureFactoryTestCase[Factory]):
    def setUp(self) -> None:
        OnServer.setUp(self)
        library.InfrastructureFactoryTestCase.setUp(self)
        self.addCleanup(self.factory.close)

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return PostgresInstanceRecorder

    def expected_application_recorder_class(self) -> type[PostgresInstanceRecorder]:
        return PostgresInstanceRecorder

    def expected_tracking_recorder_class(self) -> type[PostgresTrackingRecorder]:
        return PostgresTrackingRecorder

    def tracking_recorder_subclass(self) -> type[PostgresTrackingRecorder]:
        return Tracking

    def expected_process_recorder_class(self) -> type[PostgresInstanceRecorder]:
        return PostgresInstanceRecorder


def test_snapshots_have_a_recorder_of_their_own() -> None:
    factory = Factory({URL: new_url()})
    assert isinstance(factory.aggregate_recorder("snapshots"), PostgresSnapshotRecorder)
    factory.close()
