"""The log of facts: the `eventsourcing` application that stores them, folds them, and snapshots the fold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, cast

import msgspec
from eventsourcing.application import Application
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent
from eventsourcing.utils import Environment, EnvType

from statewright.engine.cipher import KEY_FILE, KEYS, Ring, environment_of, is_sealed
from statewright.engine.errors import InvalidError, NotFoundError, PrunedError
from statewright.engine.events import SCHEMA, AnyFact, Fact, InstancePruned, Macrostep
from statewright.engine.instance import Instance, configuration_after, fold, sets_status
from statewright.engine.mapper import FactMapper, InstanceSnapshot
from statewright.engine.recorder import Changes, InstanceFilter, InstanceRecorder
from statewright.engine.requests import Outcome
from statewright.engine.sealing import sealed, withheld

_SCAN = 32
"""How many facts are read at a time when looking back from a sequence."""


_encode = msgspec.json.Encoder().encode


class LoggedFact(NamedTuple):
    """A fact with its position in the whole store's log (positions grow, with gaps)."""

    position: int
    fact: AnyFact


class InstanceLog(Application[str]):
    """Facts in, facts out. Synchronous; `append` and `take_snapshots` are for the one writing thread."""

    name = "Statewright"
    is_snapshotting_enabled = True

    def construct_mapper(self) -> Mapper[str]:
        return self.factory.mapper(transcoder=self.construct_transcoder(), mapper_class=FactMapper)

    def __init__(self, env: EnvType | None = None) -> None:
        """Raises `InvalidError` for settings of encryption that can't be used."""
        super().__init__(env)
        ring = self.ring
        plain = cast(InstanceRecorder, self.recorder)
        self.instances: InstanceRecorder = plain if ring is None else sealed(plain, ring)
        """The recorder, as the port that it is: rows are plain here, also if they are stored encrypted."""

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        found = super().construct_env(name, env)
        found.update(environment_of(found))
        return found

    @property
    def ring(self) -> Ring | None:
        """What encrypts the store; None for a plain one."""
        return cast(FactMapper, self.mapper).ring

    @property
    def is_encrypted(self) -> bool | None:
        """Whether the store is; None for an empty one."""
        rows = cast(InstanceRecorder, self.recorder).select_instances(InstanceFilter(limit=1))
        return is_sealed(rows[0].context) if rows else None

    def check_key(self, *, read_only: bool = False) -> None:
        """Raise `InvalidError` unless the store is encrypted if, and only if, there is a key, and with that key.
        Without it an encrypted one can still be read as far as nothing is encrypted."""
        encrypted, ring = self.is_encrypted, self.ring
        if encrypted and ring is None:
            if not read_only:
                raise InvalidError(f"the store is encrypted: set {KEYS} or {KEY_FILE}")
            self.instances = withheld(self.instances)
        elif encrypted:
            self.instances.select_instances(InstanceFilter(limit=1))
        elif encrypted is False and ring is not None and not read_only:
            raise InvalidError(
                "a key is given, but the store is not encrypted: `statewright reencrypt` does that while no engine runs"
            )

    def append(self, facts: Sequence[Fact], changes: Changes) -> None:
        """Make `facts` and `changes` durable in one transaction. Raises what the recorder raises."""
        to_stored = self.mapper.to_stored_event
        self.instances.insert_events([to_stored(fact) for fact in facts], changes=changes)

    def prune(self, tombstones: Sequence[InstancePruned]) -> list[str]:
        """See `InstanceRecorder.prune`; on the writing thread."""
        return list(self.instances.prune([self.mapper.to_stored_event(tombstone) for tombstone in tombstones]))

    def load(self, instance_id: str) -> Instance | None:
        """The instance as of now: its newest usable snapshot and the facts after it. Raises `PrunedError`."""
        snapshot = self._newest_snapshot(instance_id)
        after = snapshot.sequence if snapshot is not None else None
        facts = self.facts(instance_id, after=after)
        if facts and isinstance(facts[-1], InstancePruned):
            raise pruned_error(facts[-1])
        return fold(facts, snapshot)

    def absence(self, instance_id: str) -> NotFoundError:
        """The error for an instance that has no row: it was pruned, or it never was."""
        facts = self.facts(instance_id)
        if facts and isinstance(facts[-1], InstancePruned):
            return pruned_error(facts[-1])
        return NotFoundError(f"no instance '{instance_id}'")

    def holds(self, fact: Fact) -> bool:
        """Whether this very fact is recorded."""
        found = self.facts(fact.instance_id, after=fact.sequence - 1, to=fact.sequence)
        return bool(found) and _encode(found[0]) == _encode(fact)

    def facts(self, instance_id: str, *, after: int | None = None, to: int | None = None) -> list[AnyFact]:
        """The facts of one instance in order, with after < sequence <= to. Empty for an unknown instance."""
        return cast(list[AnyFact], list(self.events.get(instance_id, gt=after, lte=to)))

    def following(self, position: int, limit: int) -> list[LoggedFact]:
        """Up to `limit` facts of all instances after `position`, in log order."""
        notifications = self.recorder.select_notifications(position, limit, inclusive_of_start=False)
        to_fact = self.mapper.to_domain_event
        return [LoggedFact(entry.id, cast(AnyFact, to_fact(entry))) for entry in notifications]

    def outcome_at(self, instance_id: str, sequence: int) -> Outcome:
        """The outcome that was answered when the fact at `sequence` was recorded. Raises `PrunedError`."""
        found = self.facts(instance_id, after=sequence - 1, to=sequence)
        if not found:
            raise self.absence(instance_id)
        fact = found[0]
        reason = getattr(fact, "reason", "") if fact.__struct_config__.tag in _REFUSALS else ""
        status = None
        moves: list[Macrostep] = []  # Back to one that lists all active states, as the first fact does.
        upto: int | None = sequence
        while status is None or not moves or moves[-1].configuration_changes is not None:
            earlier = self.events.get(instance_id, lte=upto, desc=True, limit=_SCAN)
            for seen in cast(Sequence[AnyFact], earlier):
                status = status or sets_status(seen)
                if isinstance(seen, Macrostep) and (not moves or moves[-1].configuration_changes is not None):
                    moves.append(seen)
                upto = seen.sequence - 1
        configuration: tuple[str, ...] = ()
        for move in reversed(moves):
            configuration = configuration_after(configuration, move)
        return Outcome("refused" if reason else "recorded", reason, sequence, configuration, status)

    def take_snapshots(self, instances: Sequence[Instance]) -> None:
        """Keep `instances` as they are, to load faster."""
        if self.snapshots is not None:
            self.snapshots.put([InstanceSnapshot(instance) for instance in instances])

    def _newest_snapshot(self, instance_id: str) -> Instance | None:
        if self.snapshots is None:
            return None
        stored: Sequence[StoredEvent] = self.snapshots.recorder.select_events(instance_id, desc=True, limit=1)
        if not stored:
            return None
        try:
            snapshot = cast(InstanceSnapshot, self.mapper.to_domain_event(stored[0]))
        except MapperDeserialisationError:
            return None  # An older or newer shape: the facts are the truth and are folded again.
        if snapshot.schema != SCHEMA:
            return None
        return snapshot.instance


def pruned_error(tombstone: InstancePruned) -> PrunedError:
    """Says when, and what is left to be known."""
    seconds = tombstone.time // 1_000_000_000
    when = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return PrunedError(
        f"instance '{tombstone.instance_id}' was pruned at {when}: it was {tombstone.status} at sequence "
        f"{tombstone.sequence - 1}; `statewright store restore` brings it back from its archive"
    )


_REFUSALS = frozenset({"event_refused", "event_discarded"})
