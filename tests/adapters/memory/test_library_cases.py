"""The `eventsourcing` library's own persistence test cases, run on the recorder in memory, with texts for ids."""

from __future__ import annotations

from unittest import TestCase
from uuid import uuid4

from eventsourcing.persistence import AggregateRecorder
from eventsourcing.tests import persistence as library

from statewright.adapters.memory.recorder import MemoryInstanceRecorder
from statewright.adapters.memory.store import MemoryStore


class InMemory(TestCase):
    """Each test has a store of its own."""

    def setUp(self) -> None:
        self.database = MemoryStore().database

    def new_originator_id(self) -> str:
        return str(uuid4())


class TestApplicationRecorder(InMemory, library.ApplicationRecorderTestCase[MemoryInstanceRecorder]):
    def create_recorder(self) -> MemoryInstanceRecorder:
        return self.database.recorder


class TestProcessRecorder(InMemory, library.ProcessRecorderTestCase):
    def create_recorder(self) -> MemoryInstanceRecorder:
        return self.database.recorder


class TestNonInterleavingPositions(InMemory, library.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> MemoryInstanceRecorder:
        return self.database.recorder


class TestTrackingRecorder(InMemory, library.TrackingRecorderTestCase):
    def create_recorder(self) -> MemoryInstanceRecorder:
        return self.database.recorder


class TestSnapshotRecorder(InMemory, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.database.snapshots
