"""What an event makes is gone with its answer: nothing of it is in a cycle, which only the garbage collector would
find, by going through all that is in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from statewright.engine import EffectCall
from tests.engine.test_steps import LOADING
from tests.engine.worlds import World

INSTANCES = 50


@pytest.fixture
def collecting_by_hand() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collecting_by_hand")
async def test_no_event_leaves_a_cycle(tmp_path: Path) -> None:
    async def perform(call: EffectCall) -> None:
        """A step that does nothing."""

    async with (world := World(tmp_path / "store.db", LOADING)):
        world.engine.performer("step", perform)
        await world.engine.start("loading", id="first")  # What is made once is made now.
        await world.until_recorded("first", "transition_taken", 2)
        gc.collect()
        ids = [f"w-{number}" for number in range(INSTANCES)]
        await asyncio.gather(*(world.engine.start("loading", id=instance_id) for instance_id in ids))
        for instance_id in ids:
            await world.until_recorded(instance_id, "transition_taken", 2)
        assert gc.collect() < INSTANCES
