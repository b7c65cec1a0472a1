"""Worlds with a known fault in the store or in how the engine is opened: the simulation must find each."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from msgspec.structs import replace

from statewright.adapters.memory.views import MemoryMetricsSnapshot
from statewright.engine import Engine
from statewright.engine.recorder import Changes, Lease, ParkedRow
from statewright.projections.metrics import Figures, Key, Run
from tests.simulation.doors import Modification, Sent
from tests.simulation.faults import Fault
from tests.simulation.store import SimulatedRecorder, SimulatedView
from tests.simulation.world import World


class DropsInbox(SimulatedRecorder):
    """Forgets the identities that it is given."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        given = replace(changes, inbox=[]) if changes is not None else None
        return super().insert_events(stored_events, changes=given, **kwargs)


class CommitsHalf(SimulatedRecorder):
    """Writes the facts; then the power fails, and the rows are not written."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        if self.points.faults.strike(Fault.AFTER_COMMIT):
            super().insert_events(stored_events, changes=None, **kwargs)
            self.points.crash()
        return super().insert_events(stored_events, changes=changes, **kwargs)


class NotDurable(SimulatedRecorder):
    """Says that it has committed before it has: a crash takes the newest transaction with it."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        if self.points.faults.strike(Fault.AFTER_COMMIT):
            return range(len(stored_events))
        return super().insert_events(stored_events, changes=changes, **kwargs)


class NoFence(SimulatedRecorder):
    """Lets a second writer have a sequence that was taken, in place of the first."""

    def _assert_uniqueness(self, stored_events: Sequence[StoredEvent], **_: Any) -> None:
        """Anything goes."""


class ForgetsTimers(SimulatedRecorder):
    """Keeps only the first of the timer rows that a transaction sets."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        given = replace(changes, timers_set=changes.timers_set[:1]) if changes is not None else None
        return super().insert_events(stored_events, changes=given, **kwargs)


class ReleasesNothing(SimulatedRecorder):
    """An owner that starts takes back nothing, and leases never run out."""

    def release_effects(self, **kwargs: Any) -> int:
        return 0

    def claim_effects(self, *args: Any, **kwargs: Any) -> Any:
        return super().claim_effects(*args, **{**kwargs, "lease_ns": 2**62})


class EndsNoEffect(SimulatedRecorder):
    """A result is recorded, but its effect stays open and is performed again."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        given = replace(changes, effects_ended=[]) if changes is not None else None
        return super().insert_events(stored_events, changes=given, **kwargs)


class TwoSteps(SimulatedView):
    """Writes the figures in one transaction and the position in the next."""

    def save(self, *, after: int, position: int, figures: Mapping[Key, Figures], runs: Mapping[str, Run]) -> None:
        whole, before = MemoryMetricsSnapshot, self._stored
        super().save(after=after, position=position, figures=figures, runs=runs)
        if self.points.faults.strike(Fault.PROJECTION_AFTER):
            self._stored = whole(before.position, self._stored.stored_figures, self._stored.stored_runs)
            self.points.crash()


class HalfModified(SimulatedRecorder):
    """Writes that an instance was put elsewhere, but not which timers that ends and begins."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        given = changes
        if changes is not None and any(event.topic == "instance_modified" for event in stored_events):
            given = replace(changes, timers_cleared=[], timers_set=[])
        return super().insert_events(stored_events, changes=given, **kwargs)


class ParksNothing(SimulatedRecorder):
    """Takes what is to be parked out of the way, and keeps it nowhere."""

    def park(self, row: ParkedRow, **kwargs: Any) -> None:
        super().park(row, **kwargs)
        self._parked.pop(row.parked_id, None)


class TakesOutNothing(SimulatedRecorder):
    """Deletes what was parked when it is retried, without giving back the timer or the effect."""

    def unpark(self, parked_id: str, **_: Any) -> bool:
        return super().unpark(parked_id)


class KeepsLeases(SimulatedRecorder):
    """A lease of a worker that has died is its own for ever."""

    def acquire_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        free = [name for name in names if name not in self._leases or self._leases[name].owner in ("", owner)]
        return super().acquire_leases(owner, free, now, ttl_ns)


class RenewsLost(SimulatedRecorder):
    """Says that a lease is renewed which another has taken meanwhile."""

    def renew_leases(self, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
        super().renew_leases(owner, names, now, ttl_ns)
        return [self._leases[name]._replace(owner=owner) for name in names if name in self._leases]


class IgnoresEpochs(SimulatedRecorder):
    """Lets a process write of an effect that another has taken over."""

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str) -> bool:
        return super().retry_effect(effect_id, self._epoch(effect_id), due_at, error)

    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        return super().extend_effect(effect_id, self._epoch(effect_id), due_at, details)

    def _epoch(self, effect_id: str) -> int:
        row = self._effects.get(effect_id)
        return row.lease_epoch if row is not None else 0


class BlindDoors(World):
    """The doors say that who puts an instance elsewhere has seen its last fact, whatever that is."""

    def reach(self, engine: Engine, request: Sent) -> Awaitable[Any]:
        if isinstance(request, Modification):
            seen = self.recorder._instances[request.instance_id].sequence
            request = request._replace(expected_sequence=seen)
        return super().reach(engine, request)


class IdleWorld(World):
    """Nobody fires timers and performs effects."""

    def options(self) -> dict[str, Any]:
        return {"run_due": False}


def on(
    recorder: type[SimulatedRecorder] = SimulatedRecorder, view: type[SimulatedView] = SimulatedView, **given: Any
) -> type[World]:
    """A world on such a store; `given` are other attributes of it."""
    return type(recorder.__name__, (World,), {"recorder_class": recorder, "view_class": view, **given})


_SHARED = {"shared_rate": 1.0, "looks_max": 150, "rates": {Fault.PAUSED: 0.1}}
_OLD = {"rates": {Fault.OLD_CODE: 0.05}}
FAULTS: dict[str, type[World]] = {
    "the inbox is forgotten": on(DropsInbox),
    "half a transaction is committed": on(CommitsHalf),
    "a commit is not durable": on(NotDurable),
    "two writers get the same sequence": on(NoFence),
    "a timer row is lost": on(ForgetsTimers),
    "running effects are never released": on(ReleasesNothing),
    "effects don't end with their results": on(EndsNoEffect),
    "figures and position are not saved together": on(view=TwoSteps),
    "nobody looks for what is due": IdleWorld,
    "a modification is recorded by half": on(HalfModified),
    "a modification is decided on what nobody has seen": BlindDoors,
    "what is parked is kept nowhere": on(ParksNothing, **_OLD),
    "what is retried is not given back": on(TakesOutNothing, **_OLD),
    "leases of the dead are kept": on(KeepsLeases, **_SHARED),
    "a lost lease is renewed": on(RenewsLost, **_SHARED),
    "effects are written by who has lost them": on(IgnoresEpochs, rates={Fault.PAUSED: 0.1}),
}
