"""A worker among several comes to rest: what it gives back, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from statewright.engine import EffectCall, Engine
from statewright.engine.log import LoggedFact
from statewright.engine.partitions import partition_of
from statewright.engine.recorder import InstanceFilter
from statewright.engine.verify import verify_store
from tests.engine.test_workers import Group
from tests.engine.worlds import PATIENCE_S, until
from tests.postgres_server import new_url

pytestmark = pytest.mark.integration


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    group = Group(new_url())
    yield group
    await group.close()
    assert verify_store(group.url).differences == []


class Copy:
    """A projection that keeps nothing."""

    name = "copy"

    async def position(self) -> int:
        return 0

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        return None


async def test_a_worker_that_comes_to_rest_keeps_only_what_it_has_yet_to_end(group: Group) -> None:
    """What it gives back is taken up at once, and an effect that still runs is not performed again elsewhere."""
    one, other = await group.add(), await group.add()
    await group.until_shared()
    assert one.shares is not None
    started = [await other.start("work", id=f"w-{n}") for n in range(20)]
    mine = next(s.id for s in started if partition_of(s.id, 64) in (one.shares.partitions() or ()))
    partition = partition_of(mine, 64)
    running, may_end = asyncio.Event(), asyncio.Event()

    @one.handler("work")
    async def work(call: EffectCall) -> None:
        group.performed[call.effect_id] += 1
        running.set()
        await may_end.wait()

    await one.send(mine, "do")
    await running.wait()
    draining = asyncio.create_task(one.drain(PATIENCE_S))
    await until(lambda: group.parts() == [{partition}, set(range(64)) - {partition}], "all but one to be given back")
    for one_started in started:
        await other.send(one_started.id, "do")
    await until(lambda: len(group.performed) >= 20, "effects elsewhere")
    assert not draining.done()
    may_end.set()
    await draining
    await until(lambda: group.parts() == [set(), set(range(64))], "the last partition to go over")

    async def all_done() -> bool:
        rows = await other.list(InstanceFilter(definition="work", limit=100))
        counts = ['"results":2' in row.context and '"ticks":2' in row.context for row in rows if row.id == mine]
        counts += ['"results":1' in row.context and '"ticks":1' in row.context for row in rows if row.id != mine]
        return all(counts)

    await until(all_done, "all effects and timers")
    assert set(group.performed.values()) == {1}


async def test_single_tasks_go_over_and_signals_are_of_those_done_here(group: Group) -> None:
    one = await group.add()
    await one.attach(Copy())
    await until(lambda: _followed(one), "the projection to be followed")
    other = await group.add()
    await other.attach(Copy())
    await other.start("counter", id="c")
    assert await _followed(other) == set()
    await one.drain(PATIENCE_S)
    assert one.shares is not None
    assert not one.shares.does("schedules")
    await one.close()
    await until(lambda: _followed(other), "the projection to go over")
    assert other.shares is not None
    assert other.shares.does("schedules")


async def _followed(engine: Engine) -> set[str]:
    return set((await engine.signals()).projections)
