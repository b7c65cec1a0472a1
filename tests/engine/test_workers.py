"""Several workers on one store: who does what, and that nothing is lost or done twice when they come, go and stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from statewright.adapters.cli.pruning import prune
from statewright.adapters.cli.wiring import metrics_view
from statewright.engine import EffectCall, Engine
from statewright.engine.recorder import EndedFilter, InstanceFilter
from statewright.engine.verify import verify_store
from statewright.projections.metrics_view import MetricsProjection
from tests.engine.charts import APPROVAL, COUNTER, TIMERS, from_yaml
from tests.engine.worlds import until
from tests.postgres_server import new_url

pytestmark = pytest.mark.integration

WORK = from_yaml("""
name: work
context: {results: {type: int, default: 0}, ticks: {type: int, default: 0}}
initial: working
states:
  working:
    on:
      do: {actions: [{perform: {name: work}}, {send: {event: tick, delay: 50ms}}]}
      tick: {actions: [{assign: {ticks: context.ticks + 1}}]}
      done.effect.work: {actions: [{assign: {results: context.results + 1}}]}
""")


class Group:
    """Workers on one store. Each counts the effects that it performs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.performed: Counter[str] = Counter()
        self.workers: list[Engine] = []
        self._stack = AsyncExitStack()

    async def add(self, **options: Any) -> Engine:
        charts = [APPROVAL, COUNTER, TIMERS, WORK]
        engine = await self._stack.enter_async_context(Engine.open(self.url, charts=charts, **options))

        @engine.handler("work")
        async def work(call: EffectCall) -> None:
            self.performed[call.effect_id] += 1

        self.workers.append(engine)
        return engine

    def parts(self) -> list[set[int]]:
        return [set(worker.shares.partitions() or ()) for worker in self.workers if worker.shares is not None]

    async def until_shared(self) -> None:
        """Each partition is somebody's, and the parts are even."""

        def even() -> bool:
            parts = self.parts()
            sizes = sorted(map(len, parts))
            return len(set().union(*parts)) == sum(sizes) == 64 and sizes[-1] - sizes[0] <= len(parts)

        await until(even, "the partitions to be shared evenly")

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    group = Group(new_url())
    yield group
    await group.close()
    assert verify_store(group.url).differences == []


async def test_one_worker_has_it_all_at_once(group: Group) -> None:
    await group.add()
    assert [len(part) for part in group.parts()] == [64]


async def test_a_worker_that_comes_gets_its_part_and_one_that_goes_leaves_it(group: Group) -> None:
    for _ in range(3):
        await group.add()
    await group.until_shared()
    gone = group.workers.pop()
    await gone.close()
    await group.until_shared()


async def test_timers_and_effects_are_done_once_whoever_is_asked(group: Group) -> None:
    one, other = await group.add(), await group.add()
    await group.until_shared()
    ids = [f"w-{n}" for n in range(40)]
    await asyncio.gather(*(one.start("work", id=id_) for id_ in ids))
    await asyncio.gather(*(engine.send(id_, "do") for id_ in ids for engine in (one, other, one)))

    async def all_done() -> bool:
        rows = await other.list(InstanceFilter(definition="work", limit=100))
        return all('"results":3' in row.context and '"ticks":3' in row.context for row in rows)

    await until(all_done, "all effects and timers")
    assert len(group.performed) == 120
    assert set(group.performed.values()) == {1}


async def test_what_one_has_recorded_the_other_decides_upon(group: Group) -> None:
    one, other = await group.add(), await group.add()
    await one.start("counter", id="c")
    for engine in (one, other, one, other, one):
        assert (await engine.send("c", "add", 1)).kind == "recorded"
    assert (await other.pause("c")).kind == "recorded"
    assert (await one.pause("c")).reason == "instance 'c' is paused already"
    assert (await one.resume("c")).kind == "recorded"
    assert (await other.pause("c")).kind == "recorded", "though it has the instance in memory as paused by itself"
    same = [engine.send("c", "add", 7, event_id="same") for engine in (one, other)]
    assert sorted([(await answer).kind for answer in same]) in (["duplicate", "recorded"], ["recorded", "duplicate"])


async def test_a_timer_that_another_worker_has_set_is_not_taken_for_stale(group: Group) -> None:
    one, other = await group.add(), await group.add()
    await group.until_shared()
    ids = [f"w-{n}" for n in range(20)]
    await asyncio.gather(
        *(engine.start("work", id=f"{id_}-{k}") for id_ in ids for k, engine in enumerate((one, other)))
    )
    for _ in range(2):
        await asyncio.gather(
            *(engine.send(f"{id_}-{1 - k}", "do") for id_ in ids for k, engine in enumerate((one, other)))
        )

    async def all_ticked() -> bool:
        rows = await one.list(InstanceFilter(definition="work", limit=100))
        return all('"ticks":2' in row.context for row in rows)

    await until(all_ticked, "all timers")


async def test_many_senders_of_one_instance_on_two_workers(group: Group) -> None:
    one, other = await group.add(), await group.add()
    await one.start("counter", id="c")
    await asyncio.gather(*(engine.send("c", "add", 1) for _ in range(50) for engine in (one, other)))
    assert (await one.replay("c")).instance.context["total"] == 100


async def test_whoever_is_asked_to_prune_knows_how_far_the_metrics_have_come(group: Group, tmp_path: Path) -> None:
    """One of the workers follows for all; the others see in the store what it has done."""
    for engine in (await group.add(), await group.add()):
        await engine.attach(MetricsProjection(metrics_view(engine), engine.on_reader, engine.on_writer))
    where = EndedFilter(status="completed", ended_before=2**62)
    for number, engine in enumerate(group.workers):
        await engine.start("counter", id=f"ended-{number}")
        await engine.send(f"ended-{number}", "stop")
        done = await prune(engine, engine.upkeep, [where], str(tmp_path / f"{number}.jsonl.gz"), group.url)
        assert done.pruned == 1
