"""A store in memory, for tests: it outlives the engines that are opened on it, not the process.

    store = MemoryStore()
    async with Engine.open(store, charts=[chart]) as engine: ...
    async with Engine.open(store, charts=[chart]) as engine: ...   # as after a restart

Invariant: one engine owns it at a time, as with a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from statewright.adapters.memory.factory import Database, register
from statewright.adapters.memory.recorder import MemoryInstanceRecorder
from statewright.engine.errors import UnavailableError
from statewright.engine.recorder import PARTITIONS_DEFAULT


class MemoryStore:
    """An empty store, or one whose rows `recorder` keeps."""

    read_only = False
    is_shared = False
    endpoint_path = None

    def __init__(self, *, partitions: int = PARTITIONS_DEFAULT, recorder: MemoryInstanceRecorder | None = None) -> None:
        self._name = uuid4().hex
        self._owned = False
        self.url = f"memory:{self._name}"
        self.database = Database(recorder or MemoryInstanceRecorder(partitions=partitions))
        register(self._name, self.database)

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings with which an `eventsourcing` application uses this store."""
        return {
            "PERSISTENCE_MODULE": "statewright.adapters.memory.factory",
            "MEMORY_NAME": self._name,
            "ORIGINATOR_ID_TYPE": "text",
        }

    @property
    def identity(self) -> str:
        """Its name: no two have the same."""
        return self._name

    def acquire(self) -> None:
        """Take the store. Raises `UnavailableError` while another engine has it."""
        if self._owned:
            raise UnavailableError(f"the store '{self.url}' is owned by another engine of this process")
        self._owned = True

    def close(self) -> None:
        """Give up ownership. Idempotent."""
        self._owned = False
