"""The port to a store: a recorder of the `eventsourcing` library that writes more than events.

Invariants: `insert_events` is one transaction: either all of the facts, inbox rows, instance rows, timers and
effects are durable when it returns, or none is. Rows are derived from facts alone (`engine/changes.py`), so that
they equal the fold. All methods are synchronous; the runtime calls the writing ones from one thread.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple, Protocol

import msgspec
from eventsourcing.persistence import IntegrityError, Notification, ProcessRecorder, StoredEvent, Tracking

from statewright.engine.steps import StepRow

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
    partition: int
    """That of the instance."""


class EffectRow(NamedTuple):
    """One effect. state: "pending" | "running" | "done" | "failed" | "cancelled" | "parked" |
    "dropped". `data` is JSON text, `policy` that of
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
    """What could not be understood or applied, kept with its reason until somebody looks: a message, or a timer or an
    effect that always fails (`engine/parking.py` says how each is written).

    payload is what came, as it came; `headers` JSON text; `received_at` ns UTC.
    """

    parked_id: str
    received_at: int
    subject: str
    reason: str
    headers: str
    payload: bytes


class ScheduleRow(NamedTuple):
    """A recurring start. Times are ns UTC, whole minutes but for `end_at` and `created_at`.

    status: "active" | "paused" | "ended" (`end_at` is past). Invariant: an instance is started for `next_at` alone, so
    after a crash at most that one has been started without the row telling it.
    """

    id: str
    definition: str
    version: str | None
    """None: at each start the newest."""
    cron: str
    tz: str
    context: str
    """JSON text: what each start is given."""
    catch_up: str
    """"all" | "one" | "none"."""
    overlap: str
    """"allow" | "skip"."""
    end_at: int | None
    """Nothing is due after it."""
    status: str
    next_at: int | None
    """When it is due next, None once it has ended. While it is paused: when it was to be due."""
    last_at: int | None
    """The due time of the last start."""
    note: str
    """Why the last due time brought no start, or can't yet; "" if it did."""
    actor: str
    """Who has added it."""
    created_at: int


class Backlog(msgspec.Struct, frozen=True):
    """How many effects of one queue could be performed now, and how many have not ended (those that run or wait for
    another attempt among them)."""

    due: int
    open: int


class Changes(msgspec.Struct):
    """The rows that go into one transaction beside the facts, in the order of application:
    inbox, instances (upserts, one per instance), timers (cleared, then set), what is closed, effects (requested, then
    ended), steps."""

    inbox: list[InboxRow] = []
    instances: list[InstanceRow] = []
    statuses_kept: set[str] = set()
    """Ids of those in `instances` whose row has that status already. (It is indexed, so it costs to look.)"""
    timers_cleared: list[tuple[str, str]] = []
    """(instance_id, timer_id); a timer that is not there is no error."""
    timers_set: list[TimerRow] = []
    """Upserts by (instance_id, timer_id)."""
    effects_requested: list[EffectRow] = []
    effects_ended: list[tuple[str, str, str]] = []
    """(state, error, effect_id); state: "done", "failed" or "cancelled". An effect ends once: the same again changes
    nothing, nor does "cancelled" after it, and to end as "failed" what is "done", or the other way round, is refused. A
    worker that was given up for dead may have found nobody to deliver to, when another has delivered."""
    instances_closed: list[str] = []
    """Ids of instances that were cancelled: all their timers are deleted, and their effects that are
    pending or running become "cancelled", but for those on relatives that last (`engine/relatives.py`)."""
    steps: list[StepRow] = []
    """Upserts by (instance_id, step), in order, each as `engine/steps.py` says (`after`)."""


def last_ends(ended: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """`Changes.effects_ended` with one end for each effect, by effect id. For stores that write them in one statement,
    in which an order has no meaning. Raises IntegrityError when one is to end both as "done" and as "failed"."""
    found: dict[str, tuple[str, str, str]] = {}
    for end in ended:
        before = found.setdefault(end[2], end)
        if before[0] == "cancelled":
            found[end[2]] = end
        elif end[0] not in ("cancelled", before[0]):
            raise IntegrityError(f"expected one end of effect '{end[2]}', got '{before[0]}' and '{end[0]}'")
    return [found[effect_id] for effect_id in sorted(found)]


class Lease(NamedTuple):
    """What `owner` holds under `name` until `expires_at` (ns UTC), or for longer if nobody else takes it. The epoch
    grows with every change of owner, so (name, owner, epoch) tells one holding from all others, before and after."""

    name: str
    owner: str
    """Unique to a run of a worker; "" when given back."""
    epoch: int
    expires_at: int


class InstanceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`list`: all that are given must hold; `state` = an active state; `after` = the cursor of the last page
    (an instance id); newest first is not promised, order is by the cursor."""

    definition: str | None = None
    status: str | None = None
    state: str | None = None
    limit: int = 100
    after: str | None = None


class EndedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Ended instances that nobody needs any more: of this status, ended before then (ns UTC), `after` a cursor (an
    instance id). An instance that has an effect still to be performed, or a relative (its parent, a child) that runs or
    has one, is not among them."""

    status: str
    ended_before: int
    definition: str | None = None
    limit: int = 100
    after: str | None = None


class InstanceRecorder(ProcessRecorder):
    """What a store must be able to do, beyond `eventsourcing.persistence.ProcessRecorder`."""

    @abstractmethod
    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        changes: Changes | None = None,
        leases: Sequence[Lease] = (),
        **kwargs: Any,
    ) -> Sequence[int] | None:
        """Write facts and `changes` in one transaction and return the facts' positions in the log.

        `leases` are a fence: those that the writer believes to hold. Raises `LeaseLostError` with nothing written if
        one of them is not (owner, epoch) any more; none of them can change hands before the commit. A lease that has
        expired but that nobody else has taken still holds.

        Raises `eventsourcing.persistence.IntegrityError` when an (instance, sequence) or an inbox identity exists or an
        effect has ended otherwise,
        `OperationalError` (disk full, read-only, locked, out of reach), other PersistenceErrors. After an
        `OperationalError` nothing is written unless the connection broke while committing: then the log tells, since
        whatever is read after the error sees the outcome.
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
    def due_timers(self, now: int, limit: int, *, partitions: Collection[int] | None = None) -> Sequence[TimerRow]:
        """Timers with due_at <= now, in due order. Those of paused instances too. `partitions`, here and below: only
        those of instances in these partitions; None for all."""

    @abstractmethod
    def next_timer_at(self, *, partitions: Collection[int] | None = None) -> int | None:
        """The earliest due_at of all timers, or None."""

    @abstractmethod
    def select_timers(self, instance_id: str) -> Sequence[TimerRow]: ...

    # Effects
    @abstractmethod
    def claim_effects(
        self,
        now: int,
        limit: int,
        *,
        names: Sequence[str],
        kinds: Sequence[str],
        lease_ns: int,
        partitions: Collection[int] | None = None,
    ) -> Sequence[EffectRow]:
        """Take due effects (pending with due_at <= now, or running whose lease has run out) that are of kind
        "perform" with a name in `names`, or of another kind in `kinds`. Each becomes "running", its attempt and
        lease_epoch grow by one and its due_at becomes now + lease_ns. One transaction. The earliest due are
        taken, of those due together the ones requested first; rows as they are after, in the order of request.
        Claims that run at the same time, in whatever process, never take the same effect."""

    @abstractmethod
    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str, *, counted: bool = True) -> bool:
        """Put a running effect back to pending with a new due_at, if the lease is still ours. counted: whether the
        attempt was one; if not, the next has its number."""

    @abstractmethod
    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        """Let the lease on a running effect end at `due_at` and keep `details` ("" leaves those that there are), if the
        lease is still ours."""

    @abstractmethod
    def release_effects(self, *, partitions: Collection[int] | None = None) -> int:
        """When the owner of `partitions` starts: every running effect is pending again, due at once. Returns how
        many."""

    @abstractmethod
    def next_effect_at(
        self, *, names: Sequence[str], kinds: Sequence[str], partitions: Collection[int] | None = None
    ) -> int | None: ...

    @abstractmethod
    def select_effects(self, instance_id: str) -> Sequence[EffectRow]: ...

    # Steps
    @abstractmethod
    def select_steps(self, instance_id: str, steps: Collection[str] | None = None) -> Sequence[StepRow]:
        """Those that have been recorded of one instance, by their ids; `steps`: only these."""

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
    def park(self, row: ParkedRow, *, timer: tuple[str, str] | None = None, effect_id: str | None = None) -> None:
        """Idempotent by parked_id. In the same transaction the timer (instance_id, timer_id) is deleted, and the
        effect, if it is still to be performed, becomes "parked"."""

    @abstractmethod
    def select_parked(self, limit: int) -> Sequence[ParkedRow]: ...

    @property
    @abstractmethod
    def partitions(self) -> int:
        """The store's number of partitions, fixed when it was made."""

    # Schedules
    @abstractmethod
    def insert_schedule(self, row: ScheduleRow) -> None:
        """Raises IntegrityError if the id exists."""

    @abstractmethod
    def select_schedule(self, schedule_id: str) -> ScheduleRow | None: ...

    @abstractmethod
    def select_schedules(self) -> Sequence[ScheduleRow]:
        """All, in the order of their ids. Empty, too, for a store of a version that had none."""

    @abstractmethod
    def due_schedules(self, now: int, limit: int) -> Sequence[ScheduleRow]:
        """Active ones with next_at <= now, in due order."""

    @abstractmethod
    def replace_schedule(self, before: ScheduleRow, after: ScheduleRow) -> bool:
        """Write the status, next_at, last_at and note of `after`, if those four still are what `before` says; whether
        they were. Durable when it returns."""

    @abstractmethod
    def delete_schedule(self, schedule_id: str) -> bool:
        """Whether there was one."""

    # Leases. `now` is the worker's clock; a database with a server tells the time itself, for all workers alike.
    @abstractmethod
    def acquire_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        """Take those of `names` that are free, expired or already `owner`'s, until now + ttl_ns; by name."""

    @abstractmethod
    def renew_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        """Extend those of `names` that are still `owner`'s, expired or not; by name. The others are lost."""

    @abstractmethod
    def release_leases(self, owner: str, names: Collection[str]) -> None:
        """Give back those of `names` that are `owner`'s: free at once, their epochs kept."""

    @abstractmethod
    def select_leases(self) -> list[Lease]:
        """All that were ever taken, by name."""

    # What is parked
    @abstractmethod
    def find_parked(self, parked_id: str) -> ParkedRow | None: ...

    @abstractmethod
    def unpark(
        self,
        parked_id: str,
        *,
        timer: TimerRow | None = None,
        effect_id: str | None = None,
        effect_state: str = "pending",
    ) -> bool:
        """Delete what is parked; false, and nothing else done, if it isn't there. In the same transaction `timer` is
        set again (unless there is one of that id), and an effect that is "parked" takes on `effect_state`: as "pending"
        it is due at once and begins with its first attempt, but if its instance was cancelled meanwhile it becomes
        "cancelled", unless it lasts (`engine/relatives.py`)."""

    # Upkeep
    @abstractmethod
    def consistent(self) -> AbstractContextManager[None]:
        """Inside the block, all that this thread reads is as of one moment, whatever is committed meanwhile."""

    @abstractmethod
    def tracked_positions(self) -> Mapping[str, int]:
        """By name, the position of the log that each projection has tracked in this store."""

    @abstractmethod
    def select_ended(self, where: EndedFilter) -> Sequence[InstanceRow]:
        """What may be pruned, in the order of the cursor."""

    @abstractmethod
    def located_events(self, instance_id: str) -> Sequence[Notification]:
        """The facts of one instance, in order, each with its position in the log."""

    @abstractmethod
    def prune(self, tombstones: Sequence[StoredEvent]) -> Sequence[str]:
        """Put a tombstone in the place of each instance that has ended and whose sequence is the one before the
        tombstone's: its facts, snapshots, inbox, effects, steps, timers and row are deleted, and the tombstone is
        recorded at a new position. One transaction. Returns the ids of those instances; others are left as they are.

        Whoever has read an instance before its end here fails on (instance, sequence) when it records."""

    @abstractmethod
    def restore(
        self,
        row: InstanceRow,
        events: Sequence[Notification],
        inbox: Sequence[InboxRow],
        effects: Sequence[EffectRow],
        steps: Sequence[StepRow] = (),
    ) -> None:
        """Undo `prune` for one instance, in one transaction: the tombstone goes, and all that was there comes back, its
        facts at their old positions. Raises IntegrityError, with nothing written, unless the instance's only fact is a
        tombstone right after `row.sequence`."""

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
    """As it may be shown: without a password."""
    read_only: bool

    @property
    def identity(self) -> str:
        """Tells this store from all others. Only of a store that has been acquired."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether several processes may write it at once."""
        ...

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
