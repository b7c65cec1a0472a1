"""A store in memory that fails and crashes where the faults say; what it has committed outlives every process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent
from eventsourcing.popo import POPOAggregateRecorder

from statewright.adapters.memory.recorder import MemoryInstanceRecorder
from statewright.adapters.memory.store import MemoryStore
from statewright.adapters.memory.views import MemoryMetricsView
from statewright.engine.recorder import Changes, DefinitionRow, EffectRow, Lease, ScheduleRow, TimerRow
from statewright.engine.relatives import KINDS
from statewright.projections.metrics import Figures, Key, Run
from tests.simulation.faults import Crashed, Fault, Faults
from tests.simulation.loop import Process


class FaultPoints:
    """What code in a process meets at a boundary."""

    def __init__(self, faults: Faults, crash: Callable[[], None]) -> None:
        self.faults = faults
        self._crash = crash

    def crash(self) -> None:
        """The process dies here: raises `Crashed`."""
        self._crash()
        raise Crashed

    def may_crash(self, fault: Fault, often: float = 1.0) -> None:
        """The process may die here: raises `Crashed`."""
        if self.faults.strike(fault, often):
            self.crash()

    def may_fail(self, fault: Fault, often: float = 1.0) -> None:
        """The store may fail here, with nothing written, or written and nothing said."""
        if self.faults.strike(fault, often):
            raise OperationalError(fault.name.lower().replace("_", " "))


class SimulatedRecorder(MemoryInstanceRecorder):
    """The recorder that all processes share; the faults are those of the process that calls."""

    points: FaultPoints

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._claimers: dict[str, Process | None] = {}
        """By effect, the process that has claimed it last."""
        self.intrusions: list[str] = []
        """What a process wrote of an effect that another had claimed since."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        points = self.points
        points.may_crash(Fault.BEFORE_COMMIT)
        if changes is not None and any(kind_of(self, ended[2]) in KINDS for ended in changes.effects_ended):
            points.may_crash(Fault.MESSAGE_NOT_ENDED)
        points.may_fail(Fault.COMMIT_FAILS)
        if points.faults.strike(Fault.COMMIT_CONFLICT):
            raise IntegrityError("another writer was first")
        positions = super().insert_events(stored_events, changes=changes, **kwargs)
        if changes is not None:
            self._note_claims(row for row in changes.effects_requested if row.state == "running")
        points.may_fail(Fault.COMMIT_UNKNOWN)
        points.may_crash(Fault.AFTER_COMMIT)
        return positions

    def select_events(self, *args: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        self.points.may_fail(Fault.READ_FAILS)
        return super().select_events(*args, **kwargs)

    def due_timers(self, *args: Any, **kwargs: Any) -> Sequence[TimerRow]:
        self.points.may_fail(Fault.READ_FAILS)
        rows = super().due_timers(*args, **kwargs)
        if rows:
            self.points.may_crash(Fault.TIMER_NOT_FIRED)
        return rows

    def claim_effects(self, *args: Any, **kwargs: Any) -> Sequence[EffectRow]:
        rows = super().claim_effects(*args, **kwargs)
        self._note_claims(rows)
        self.points.may_fail(Fault.CLAIM_UNKNOWN)
        self.points.may_crash(Fault.EFFECT_CLAIMED)
        return rows

    def next_effect_at(self, **kwargs: Any) -> int | None:
        self.points.may_fail(Fault.READ_FAILS)
        return super().next_effect_at(**kwargs)

    def retry_effect(self, effect_id: str, *args: Any, **kwargs: Any) -> bool:
        self.points.may_fail(Fault.RETRY_FAILS)
        return self._own(effect_id, super().retry_effect(effect_id, *args, **kwargs))

    def release_effects(self, **kwargs: Any) -> int:
        self.points.may_fail(Fault.RELEASE_FAILS)
        return super().release_effects(**kwargs)

    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        self.points.may_fail(Fault.HEARTBEAT_FAILS)
        extended = self._own(effect_id, super().extend_effect(effect_id, lease_epoch, due_at, details))
        self.points.may_crash(Fault.HEARTBEAT_CRASH)
        return extended

    def insert_schedule(self, row: ScheduleRow) -> None:
        self.points.may_fail(Fault.SCHEDULE_FAILS, 5)
        super().insert_schedule(row)

    def replace_schedule(self, before: ScheduleRow, after: ScheduleRow) -> bool:
        self.points.may_crash(Fault.SCHEDULE_NOT_MOVED, 15)
        self.points.may_fail(Fault.SCHEDULE_FAILS, 5)
        return super().replace_schedule(before, after)

    def _note_claims(self, rows: Iterable[EffectRow]) -> None:
        for row in rows:
            self._claimers[row.effect_id] = Process.current()

    def _own(self, effect_id: str, written: bool) -> bool:
        """A process that was taken for dead may write nothing of what another has taken over."""
        current = Process.current()
        if written and (claimer := self._claimers.get(effect_id)) is not current:
            names = [process.name if process is not None else "nobody" for process in (current, claimer)]
            self.intrusions.append(f"{names[0]} wrote of effect '{effect_id}', which {names[1]} had claimed")
        return written

    def acquire_leases(self, *args: Any, **kwargs: Any) -> list[Lease]:
        self.points.may_fail(Fault.LEASES_FAIL, 5)
        leases = super().acquire_leases(*args, **kwargs)
        self.points.may_fail(Fault.LEASES_UNKNOWN, 5)
        self.points.may_crash(Fault.SHARE_NOT_TAKEN_OVER, 5)
        return leases

    def renew_leases(self, *args: Any, **kwargs: Any) -> list[Lease]:
        self.points.may_fail(Fault.LEASES_FAIL)
        leases = super().renew_leases(*args, **kwargs)
        self.points.may_fail(Fault.LEASES_UNKNOWN)
        return leases

    def park(self, *args: Any, **kwargs: Any) -> None:
        self.points.may_fail(Fault.PARKING_FAILS, 5)
        super().park(*args, **kwargs)
        self.points.may_fail(Fault.PARKING_UNKNOWN, 5)
        self.points.may_crash(Fault.PARKED_CRASH, 5)

    def unpark(self, *args: Any, **kwargs: Any) -> bool:
        self.points.may_fail(Fault.PARKING_FAILS, 5)
        self.points.may_crash(Fault.RETRIED_NOT_UNPARKED, 5)
        was_parked = super().unpark(*args, **kwargs)
        self.points.may_fail(Fault.PARKING_UNKNOWN, 5)
        return was_parked

    def insert_definition(self, row: DefinitionRow) -> None:
        self.points.may_fail(Fault.DEFINITION_FAILS)
        self.points.may_crash(Fault.DEFINITION_CRASH)
        super().insert_definition(row)


def kind_of(recorder: MemoryInstanceRecorder, effect_id: str) -> str:
    row = recorder._effects.get(effect_id)
    return row.kind if row is not None else ""


class SimulatedSnapshots(POPOAggregateRecorder):
    """Where snapshots are kept, with their faults."""

    points: FaultPoints

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self.points.may_fail(Fault.SNAPSHOT_FAILS, 20)
        self.points.may_crash(Fault.SNAPSHOT_CRASH, 20)
        return super().insert_events(stored_events, **kwargs)


class SimulatedView(MemoryMetricsView):
    """A read model with its faults."""

    points: FaultPoints

    def save(self, *, after: int, position: int, figures: Mapping[Key, Figures], runs: Mapping[str, Run]) -> None:
        self.points.may_fail(Fault.PROJECTION_FAILS)
        self.points.may_crash(Fault.PROJECTION_BEFORE)
        super().save(after=after, position=position, figures=figures, runs=runs)
        self.points.may_fail(Fault.PROJECTION_UNKNOWN)
        self.points.may_crash(Fault.PROJECTION_AFTER)


class SimulatedStore(MemoryStore):
    """A store that several processes share, or believe to own: who was paused does not know that it was given up."""

    def __init__(self, recorder: SimulatedRecorder, points: FaultPoints, *, is_shared: bool) -> None:
        super().__init__(recorder=recorder)
        self.is_shared = is_shared
        self.url = "memory:simulated"  # In messages, which are to be the same in every run.
        snapshots = SimulatedSnapshots()
        recorder.points = snapshots.points = points
        recorder.snapshots = snapshots

    def acquire(self) -> None:
        """Any process may."""
