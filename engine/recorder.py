"""The port to a store: a recorder of the `eventsourcing` library that writes more than events.

Invariants: `insert_events` is one transaction: either all of the facts, inbox rows, instance rows, timers and
effects are durable when it returns, or none is. Rows are derived from facts alone (`engine/changes.py`), so that
they equal the fold. All methods are synchronous; the runtime calls the writing ones from one thread.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec
from eventsourcing.persistence import IntegrityError, ProcessRecorder, StoredEvent, Tracking

PARTITIONS_DEFAULT = 64
"""How many partitions a new store gets; fixed for the store's life (FNV-1a-32 of the instance id, mod n)."""


class InboxRow(NamedTuple):
    """One identity that has been recorded: (instance, source, event id) -> the fact that recorded it."""

    instance_id: str
    source: str
    event_id: str
    sequence: int
    digest: bytes
    """16 bytes of the content (name, data, actor): tells a duplicate from a reused id."""


class InstanceRow(NamedTuple):
    """The row of table `instances`; configuration and context are JSON text, times ns UTC (ended_at None while
    it runs)."""

    id: str
    definition: str
    version: str
    status: str
    configuration: str
    context: str
    sequence: int
    started_at: int
    updated_at: int
    ended_at: int | None
    digest: str
    """Digest of the definition it is pinned to."""
    failure: str
    """Why it failed or was cancelled, else "". (Not `error`: a reply with that key is a refusal.)"""
    parent: str | None = None
    """The instance that has invoked it."""


class TimerRow(NamedTuple):
    instance_id: str
    timer_id: str
    due_at: int
    event: str


class EffectRow(NamedTuple):
    """One effect. state: "pending" | "running" | "done" | "failed" | "cancelled". `data` is JSON text, `policy` that of
    what the chart says about how it is performed ("" if nothing), `details` that of what the last heartbeat brought (""
    if there was none)."""

    effect_id: str
    instance_id: str
    partition: int
    name: str
    kind: str
    state: str
    attempt: int
    due_at: int
    lease_epoch: int
    data: str
    error: str
    policy: str = ""
    details: str = ""


class DefinitionRow(NamedTuple):
    name: str
    version: str
    digest: str
    json: str


class ParkedRow(NamedTuple):
    """A message that could not be understood or applied, kept with its reason until somebody looks.

    payload is what came, as it came; `headers` JSON text; `received_at` ns UTC.
    """

    parked_id: str
    received_at: int
    subject: str
    reason: str
    headers: str
    payload: bytes


class Backlog(NamedTuple):
    """How many effects of one queue could be performed now, and how many have not ended (those that run or wait for
    another attempt among them)."""

    due: int
    open: int


class Changes(msgspec.Struct):
    """The rows that go into one transaction beside the facts, in the order of application:
    inbox, instances (upserts, one per instance), timers (cleared, then set), what is closed, effects (requested, then
    ended)."""

    inbox: list[InboxRow] = []
    instances: list[InstanceRow] = []
    timers_cleared: list[tuple[str, str]] = []
    """(instance_id, timer_id); a timer that is not there is no error."""
    timers_set: list[TimerRow] = []
    """Upserts by (instance_id, timer_id)."""
    effects_requested: list[EffectRow] = []
    effects_ended: list[tuple[str, str, str]] = []
    """(state, error, effect_id); state: "done", "failed" or "cancelled"."""
    instances_closed: list[str] = []
    """Ids of instances that were cancelled: all their timers are deleted, and their effects that are
    pending or running become "cancelled", but for those on relatives that last (`engine/relatives.py`)."""


class InstanceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`list`: all that are given must hold; `state` = an active state; `after` = the cursor of the last page
    (an instance id); newest first is not promised, order is by the cursor."""

    definition: str | None = None
    status: str | None = None
    state: str | None = None
    limit: int = 100
    after: str | None = None


class InstanceRecorder(ProcessRecorder):
    """What a store must be able to do, beyond `eventsourcing.persistence.ProcessRecorder`."""

    @abstractmethod
    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        """Write facts and `changes` in one transaction and return the facts' positions in the log.

        Raises `eventsourcing.persistence.IntegrityError` when an (instance, sequence) or an inbox identity exists,
        `OperationalError` (disk full, read-only, locked) with nothing written, other PersistenceErrors.
        """

    # The inbox
    @abstractmethod
    def select_inbox(self, instance_id: str, limit: int) -> Sequence[InboxRow]:
        """The identities of one instance, newest (highest sequence) first."""

    @abstractmethod
    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None: ...

    # Instances: the read model written with the events
    @abstractmethod
    def select_instance(self, instance_id: str) -> InstanceRow | None: ...

    @abstractmethod
    def select_instances(self, where: InstanceFilter) -> Sequence[InstanceRow]: ...

    # Timers
    @abstractmethod
    def due_timers(self, now: int, limit: int) -> Sequence[TimerRow]:
        """Timers with due_at <= now, in due order. Those of paused instances too."""

    @abstractmethod
    def next_timer_at(self) -> int | None:
        """The earliest due_at of all timers, or None."""

    @abstractmethod
    def select_timers(self, instance_id: str) -> Sequence[TimerRow]: ...

    # Effects
    @abstractmethod
    def claim_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str], lease_ns: int
    ) -> Sequence[EffectRow]:
        """Take due effects (pending with due_at <= now, or running whose lease has run out) that are of kind
        "perform" with a name in `names`, or of another kind in `kinds`. Each becomes "running", its attempt and
        lease_epoch grow by one and its due_at becomes now + lease_ns. One transaction. The earliest due are
        taken, of those due together the ones requested first; rows as they are after, in the order of request."""

    @abstractmethod
    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str) -> bool:
        """Put a running effect back to pending with a new due_at, if the lease is still ours."""

    @abstractmethod
    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        """Let the lease on a running effect end at `due_at` and keep `details` ("" leaves those that there are), if the
        lease is still ours."""

    @abstractmethod
    def release_effects(self) -> int:
        """At the owner's start: every running effect is pending again, due at once. Returns how many."""

    @abstractmethod
    def next_effect_at(self, *, names: Sequence[str], kinds: Sequence[str]) -> int | None: ...

    @abstractmethod
    def select_effects(self, instance_id: str) -> Sequence[EffectRow]: ...

    # Definitions
    @abstractmethod
    def insert_definition(self, row: DefinitionRow) -> None:
        """Raises IntegrityError if (name, version) exists with another digest; the same digest is a no-op."""

    @abstractmethod
    def select_definition(self, name: str, version: str) -> DefinitionRow | None: ...

    @abstractmethod
    def select_definitions(self) -> Sequence[DefinitionRow]:
        """All, oldest first; of one name the last inserted is the one that new starts take."""

    # Parked messages
    @abstractmethod
    def park(self, row: ParkedRow) -> None:
        """Idempotent by parked_id."""

    @abstractmethod
    def select_parked(self, limit: int) -> Sequence[ParkedRow]: ...

    @property
    @abstractmethod
    def partitions(self) -> int:
        """The store's number of partitions, fixed when it was made."""

    # What waits, for operators. A count stops at `limit`, so that it costs little whatever waits.
    @abstractmethod
    def count_timers(self, now: int, limit: int) -> int:
        """How many timers have due_at <= now."""

    @abstractmethod
    def count_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str]
    ) -> Mapping[str, Backlog]:
        """The queues in which something is open: "perform.<name>" for each of `names`, and each of `kinds` (but
        "perform"). Due is what has due_at <= now, be it pending or with a lease that has run out."""

    def touch(self, now: int) -> None:
        """Write something, to see whether the store can be written: on the writing thread. Raises what it raises."""
        last = self.max_tracking_id("readiness") or 0  # The clock may have been set back.
        with suppress(IntegrityError):  # Another worker has just done it.
            self.insert_tracking(Tracking("readiness", max(now, last + 1)))


class Store(Protocol):
    """An opened store. Found by URL scheme through the entry-point group `statewright.stores`, whose values are
    callables `(url: str, *, read_only: bool = False) -> Store` that raise `UnavailableError` or `InvalidError`."""

    url: str
    read_only: bool

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment for `eventsourcing.application.Application` (PERSISTENCE_MODULE and its settings); its
        factory's application recorder is an `InstanceRecorder`."""
        ...

    @property
    def endpoint_path(self) -> str | None:
        """Where the owner says how it is reached (a JSON file), None if the store has no such place."""
        ...

    def acquire(self) -> None:
        """Become the one process that writes. Raises `UnavailableError` naming the holder when there is one."""
        ...

    def close(self) -> None:
        """Give up ownership and close. Idempotent."""
        ...
