"""What the `eventsourcing` library makes its recorders with, when PERSISTENCE_MODULE names this module.

Invariant: all who name the same database get the same one, for as long as anybody holds it.
"""

from __future__ import annotations

from threading import Lock
from weakref import WeakValueDictionary

from eventsourcing import popo
from eventsourcing.persistence import AggregateRecorder
from eventsourcing.utils import Environment, EnvType

from statewright.adapters.memory.recorder import MemoryInstanceRecorder
from statewright.engine.recorder import PARTITIONS_DEFAULT


class Database:
    """What has been committed: facts with their rows, snapshots, and whatever views are kept beside them."""

    def __init__(self, recorder: MemoryInstanceRecorder) -> None:
        self.recorder = recorder

    @property
    def snapshots(self) -> AggregateRecorder:
        return self.recorder.snapshots


_DATABASES: WeakValueDictionary[str, Database] = WeakValueDictionary()
_LOCK = Lock()


def register(name: str, database: Database) -> None:
    """Make `database` what the environment finds under `name`."""
    with _LOCK:
        _DATABASES[name] = database


class Factory(popo.POPOFactory):
    """The library's factory on a shared database. Environment: MEMORY_NAME (which one; it is made if nobody holds
    it), STATEWRIGHT_PARTITIONS (of a new one)."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        name = self.env.get("MEMORY_NAME", "")
        with _LOCK:
            found = _DATABASES.get(name)
            if found is None:
                partitions = int(self.env.get("STATEWRIGHT_PARTITIONS", str(PARTITIONS_DEFAULT)))
                found = _DATABASES[name] = Database(MemoryInstanceRecorder(partitions=partitions))
        self.database = found

    def application_recorder(self) -> MemoryInstanceRecorder:
        return self.database.recorder

    def process_recorder(self) -> MemoryInstanceRecorder:
        return self.database.recorder

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        return self.database.recorder if purpose == "events" else self.database.snapshots
