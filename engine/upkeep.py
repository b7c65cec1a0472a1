"""Upkeep: instances that ended long ago make room, and come back.

Invariant: nothing goes before every projection has passed it, so that what they tell stays right.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventsourcing.persistence import IntegrityError, Notification, PersistenceError
from msgspec.structs import replace

from statewright.engine.clock import Clock
from statewright.engine.errors import AlreadyExistsError, BusyError, UnavailableError
from statewright.engine.events import InstancePruned
from statewright.engine.followers import Follower
from statewright.engine.recorder import EffectRow, InboxRow, InstanceRecorder, InstanceRow
from statewright.engine.runtime import Runtime
from statewright.engine.steps import StepRow


class Upkeep:
    """What the owner of a store does for it; `followers` are those of its projections that are attached here."""

    def __init__(
        self, recorder: InstanceRecorder, runtime: Runtime, followers: Sequence[Follower], clock: Clock
    ) -> None:
        self._recorder = recorder
        self._runtime = runtime
        self._followers = followers
        self._clock = clock

    async def prune(self, tombstones: Sequence[InstancePruned], *, position: int) -> Sequence[str]:
        """Put tombstones in the place of instances that have ended and are archived; their times are set to now.
        position: where in the log the last of their facts is. The ids of those that are pruned: one whose sequence is
        no longer the one before its tombstone's is left.

        Raises `BusyError` if a projection has not passed `position` yet, `UnavailableError`."""
        for name, tracked in (await self._runtime.on_reader(self._recorder.tracked_positions)).items():
            # One that isn't attached here is judged by what it has tracked.
            if tracked < position and name not in {follower.name for follower in self._followers}:
                raise BusyError(
                    f"projection '{name}' has come to {tracked:,} of {position:,}, and what is pruned would be lost to "
                    f"it; let it catch up first (with `statewright serve`)"
                )
        await self._until_followed(position)
        now = self._clock.now()
        try:
            return await self._runtime.prune([replace(tombstone, time=now) for tombstone in tombstones])
        except PersistenceError as error:
            raise UnavailableError(f"the store can't be written: {error}") from error

    async def restore(
        self,
        row: InstanceRow,
        events: Sequence[Notification],
        inbox: Sequence[InboxRow],
        effects: Sequence[EffectRow],
        steps: Sequence[StepRow] = (),
    ) -> None:
        """Bring back a pruned instance (see `InstanceRecorder.restore`). Raises `AlreadyExistsError` if it wasn't
        pruned from this store right after `row.sequence`, `BusyError` if a projection lags, `UnavailableError`."""
        position = await self._runtime.on_reader(self._recorder.max_notification_id)
        await self._until_followed(position or 0)
        try:
            await self._runtime.on_writer(self._recorder.restore, row, events, inbox, effects, steps)
        except IntegrityError as error:
            raise AlreadyExistsError(f"instance '{row.id}' can't be restored: {error}") from error
        except PersistenceError as error:
            raise UnavailableError(f"the store can't be written: {error}") from error

    async def _until_followed(self, position: int) -> None:
        """Return once every projection that is attached has passed `position`. Raises `BusyError`."""
        for follower in self._followers:
            if not await follower.has_passed(position):
                raise BusyError(f"projection '{follower.name}' has not come to {position:,} yet; try again later")
