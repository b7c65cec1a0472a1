"""Worlds with a known fault in the store or in how the engine is opened: the simulation must find each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from msgspec.structs import replace

from statewright.adapters.memory.views import MemoryMetricsSnapshot
from statewright.engine.recorder import Changes
from statewright.projections.metrics import Figures, Key, Run
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
    """Loses a timer row whose transaction also clears another."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        given = replace(changes, timers_set=[]) if changes is not None and changes.timers_cleared else changes
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


class IdleWorld(World):
    """Nobody fires timers and performs effects."""

    def options(self) -> dict[str, Any]:
        return {"run_due": False}


def on(recorder: type[SimulatedRecorder] = SimulatedRecorder, view: type[SimulatedView] = SimulatedView) -> type[World]:
    """A world on such a store."""
    return type(recorder.__name__, (World,), {"recorder_class": recorder, "view_class": view})


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
}
