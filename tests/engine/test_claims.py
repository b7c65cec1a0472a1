"""Effects are claimed in the transaction that asks for them; what became of it decides whether they are given back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from statewright.engine import EffectCall
from statewright.engine.recorder import Changes, EffectRow
from statewright.engine.rooms import CONCURRENCY_MAX
from statewright.engine.threads import THREADS_MAX
from tests.engine.test_steps import LOADING
from tests.engine.worlds import World, until


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store.db", LOADING)


async def test_no_more_are_claimed_than_there_is_room_for(world: World) -> None:
    running, most = 0, 0

    async def perform(call: EffectCall) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async with world:
        world.engine.performer("step", perform)
        ids = [f"w-{number}" for number in range(CONCURRENCY_MAX + 200)]
        await asyncio.gather(*(world.engine.start("loading", id=instance_id) for instance_id in ids))
        for instance_id in ids:
            await world.until_recorded(instance_id, "transition_taken", 2)
        assert 0 < most <= CONCURRENCY_MAX


def claimed(world: World) -> EffectRow:
    """The effect of instance "w", claimed by a commit."""
    connection = world.connect()
    connection.execute(f"UPDATE effects SET state = 'running', attempt = 1, lease_epoch = 1, due_at = {2**62}")
    connection.close()
    (row,) = world.engine.recorder.select_effects("w")
    return row


async def test_a_claim_of_which_it_is_not_known_whether_it_is_there_is_given_back(world: World) -> None:
    attempts: list[int] = []

    async def perform(call: EffectCall) -> None:
        attempts.append(call.attempt)

    async with world:
        await world.engine.start("loading", id="w")
        # As a commit leaves it that was taken for failed.
        row = claimed(world)
        world.engine._behind.effects.unclaim(Changes(effects_requested=[row]), is_certain=False)
        world.engine.performer("step", perform)
        await world.until_recorded("w", "transition_taken", 2)
        assert attempts == [2, 1]


async def test_a_claim_that_another_worker_has_made_is_left_alone(world: World) -> None:
    attempts: list[str] = []

    async def perform(call: EffectCall) -> None:
        attempts.append(call.effect_id)

    async with world:
        await world.engine.start("loading", id="w")
        # As another worker's commit leaves it, while the own one failed.
        row = claimed(world)
        own = Changes(effects_requested=[row._replace(due_at=2**61)])
        world.engine._behind.effects.unclaim(own, is_certain=False)
        world.engine.performer("step", perform)
        await world.engine.start("loading", id="x")
        await world.until_recorded("x", "transition_taken", 2)
        assert {effect_id.split("-")[0] for effect_id in attempts} == {"x"}
        assert world.engine.recorder.select_effects("w") == [row]


async def test_plain_functions_that_fill_all_threads_hold_up_no_coroutines(world: World) -> None:
    released = threading.Event()

    async def perform(call: EffectCall) -> None:
        """A step that does nothing."""

    async with world:
        effects = world.engine.performers
        world.engine.performer("step", lambda call: released.wait())
        slow = [f"slow-{number}" for number in range(THREADS_MAX + 5)]
        await asyncio.gather(*(world.engine.start("loading", id=instance_id) for instance_id in slow))
        await until(lambda: effects.running == THREADS_MAX, "all threads to be taken")
        world.engine.performer("step", perform)  # From here on the same steps are performed by a coroutine.
        await world.engine.start("loading", id="quick")
        await world.until_recorded("quick", "transition_taken", 2)
        await until(lambda: effects.running == THREADS_MAX, "those without a thread to be performed by the coroutine")
        released.set()
        for instance_id in slow:
            await world.until_recorded(instance_id, "transition_taken", 2)
