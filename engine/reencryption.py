"""Re-encryption: everything that a store keeps, under the first key of the ring, and no older copy left.

What is secret in which row is said in `sealing.py`, once for all stores; a store only has its rows replaced, through
the port `Rewriting`. Invariants: one transaction: all of it or nothing; nobody else writes meanwhile, and no engine
that had the store open before goes on afterwards as if nothing had happened. (What backups, logs of transactions and
the disk itself keep of what was overwritten is not reached.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec
from eventsourcing.persistence import PersistenceError

from statewright.engine.cipher import Ring, is_sealed, ring_of
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.recorder import EffectRow, InboxRow, InstanceRow, ParkedRow, ScheduleRow, Store, TimerRow
from statewright.engine.sealing import open_row, seal_row
from statewright.engine.stores import open_store

R = TypeVar("R")


class StateRow(NamedTuple):
    """A stored fact or snapshot, without its position."""

    originator_id: str
    originator_version: int
    topic: str
    state: bytes


class Table(NamedTuple):
    """A table, the NamedTuple that its rows are (whose annotations say what a column holds), and its key."""

    name: str
    kind: type[Any]
    key: tuple[str, ...]


INSTANCES = Table("instances", InstanceRow, ("id",))
INBOX = Table("inbox", InboxRow, ("instance_id", "source", "event_id"))
STATES = tuple(
    Table(name, StateRow, ("originator_id", "originator_version")) for name in ("stored_events", "stored_snapshots")
)
OTHERS = (
    Table("effects", EffectRow, ("instance_id", "effect_id")),
    Table("timers", TimerRow, ("instance_id", "timer_id")),
    Table("parked", ParkedRow, ("parked_id",)),
    Table("schedules", ScheduleRow, ("id",)),
)
TABLES = (INSTANCES, INBOX, *STATES, *OTHERS)
"""All that hold what users bring."""


class Rewriting(Protocol):
    """A store whose rows are being replaced, in one transaction."""

    def rewrite(self, table: Table, change: Callable[[Any], Any]) -> int:
        """Put `change(row)` in the place of every row of the table; how many there are. It may change the key."""
        ...


@runtime_checkable
class Rewritable(Store, Protocol):
    """A store that can be rewritten."""

    def rewriting(self) -> AbstractContextManager[Rewriting]:
        """Have the store for oneself, in one transaction, which is committed when the block ends, after which nothing
        is left in the store of what was there before; rolled back if it raises.

        Raises `UnavailableError` naming who has the store open, `InvalidError` as `acquire`, and the library's
        `PersistenceError`s."""
        ...


class Reencrypted(msgspec.Struct, frozen=True):
    """What was done: the name of the key, and how many facts (with snapshots) and other rows it encrypts now."""

    key: str
    facts: int
    rows: int


def reencrypt(url: str) -> Reencrypted:
    """Encrypt the store behind `url` with the first key of the key ring in the environment; it may be plain, or
    encrypted with any of its keys. Raises `InvalidError` (no key, a key that is missing), `NotFoundError` if there is
    no store, `UnavailableError` if somebody has it open or it can't be written."""
    ring = ring_of(os.environ)
    with suppress(InvalidError):  # Of an older version's store, which is migrated here.
        open_store(url, read_only=True).close()  # Refuses to make one.
    store = open_store(url)
    try:
        if not isinstance(store, Rewritable):
            raise InvalidError(f"expected a store that can be re-encrypted, got {store.url}")
        with store.rewriting() as rewriting:
            return _reencrypt(rewriting, ring)
    except PersistenceError as error:
        raise UnavailableError(f"the store {store.url} can't be re-encrypted: {error}") from error
    finally:
        store.close()


def _reencrypt(rewriting: Rewriting, ring: Ring) -> Reencrypted:
    plain = 0

    def sealed(row: R) -> R:
        return seal_row(ring, open_row(ring, row))

    def sealed_instance(row: InstanceRow) -> InstanceRow:
        nonlocal plain
        plain += not is_sealed(row.context)
        return sealed(row)

    def sealed_state(row: StateRow) -> StateRow:
        place = f"{row.topic} {row.originator_id} {row.originator_version}"
        state = ring.decrypt(row.state, place) if is_sealed(row.state) else row.state
        return row._replace(state=ring.encrypt(state, place))

    rows = rewriting.rewrite(INSTANCES, sealed_instance)
    if plain:  # Identities keep their key for ever.
        rows += rewriting.rewrite(INBOX, lambda row: seal_row(ring, row))
    facts = sum(rewriting.rewrite(table, sealed_state) for table in STATES)
    rows += sum(rewriting.rewrite(table, sealed) for table in OTHERS)
    return Reencrypted(ring.first, facts, rows)
