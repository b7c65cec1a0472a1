"""The log of facts: the `eventsourcing` application that stores them, folds them, and snapshots the fold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, cast

import msgspec
from eventsourcing.application import Application
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent

from statewright.engine.errors import NotFoundError, PrunedError
from statewright.engine.events import SCHEMA, AnyFact, Fact, InstancePruned, Macrostep
from statewright.engine.instance import Instance, fold, sets_status
from statewright.engine.mapper import FactMapper, InstanceSnapshot
from statewright.engine.recorder import Changes, InstanceRecorder
from statewright.engine.requests import Outcome

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

    @property
    def instances(self) -> InstanceRecorder:
        """The recorder, as the port that it is."""
        return cast(InstanceRecorder, self.recorder)

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
        configuration: tuple[str, ...] | None = None
        status = None
        upto: int | None = sequence
        while configuration is None or status is None:
            earlier = self.events.get(instance_id, lte=upto, desc=True, limit=_SCAN)
            for seen in cast(Sequence[AnyFact], earlier):
                status = status or sets_status(seen)
                if configuration is None and isinstance(seen, Macrostep):
                    configuration = seen.configuration
                upto = seen.sequence - 1
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
