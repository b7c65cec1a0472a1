"""A clock that is set forward or back: timers fire once and in order, facts never go back in time."""

from __future__ import annotations

import asyncio

import freezegun

from statewright.engine import Engine, SystemClock
from statewright.engine.clock import SECOND_NS
from tests.engine.charts import TIMERS
from tests.engine.test_timers import everything_due_has_fired, rung, timers_of, until_rung
from tests.engine.worlds import World, until

HOUR_S = 3_600


async def test_forward_everything_due_fires_once_in_due_order(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set_again")  # in 20 s
        await world.engine.send("t", "set_many")  # in 10 s
        world.clock.advance(24 * HOUR_S)
        await until_rung(world, "ring.z", "ring.m", "ring.b", "ring.a")
        await world.restart()
        await everything_due_has_fired(world)
        assert len(await rung(world)) == 4


async def test_back_nothing_fires_twice_and_what_is_pending_waits_for_its_time(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set_many")
        await world.engine.send("t", "set_again")
        due_at = world.clock.now() + 20 * SECOND_NS
        world.clock.advance(10)
        await until_rung(world, "ring.z", "ring.m", "ring.b")
        world.clock.advance(-HOUR_S)
        await everything_due_has_fired(world)
        assert len(await rung(world)) == 3
        assert [row.due_at for row in await timers_of(world, "t")] == [due_at]
        world.clock.advance(HOUR_S + 10)
        await until_rung(world, "ring.z", "ring.m", "ring.b", "ring.a")


async def test_facts_of_an_instance_never_go_back_in_time_not_even_after_a_restart(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        world.clock.advance(60)
        await world.engine.send("t", "set")
        latest = (await world.last("t")).time
        world.clock.advance(-HOUR_S)
        await world.engine.send("t", "unset")
        await world.restart()
        for name in ("set", "wait", "nothing"):
            await world.engine.send("t", name)
        await world.engine.pause("t")
        await world.engine.send("t", "leave")
        await world.engine.resume("t")
        await world.engine.cancel("t")
        times = [fact.time for fact in await world.facts("t")]
        assert times == sorted(times)
        assert set(times[2:]) == {latest}
        row = await world.engine.status("t")
        assert (row.updated_at, row.ended_at) == (latest, latest)


async def test_a_clock_that_was_wrong_for_a_moment_spoils_nothing_that_begins_later(world: World) -> None:
    """Set years ahead and back again: new instances are of today, and so are new timers, of old ones, too."""
    async with world:
        world.clock.advance(10 * 365 * 24 * HOUR_S)
        await world.engine.start("timers", id="t")
        world.clock.advance(-10 * 365 * 24 * HOUR_S)
        await world.engine.start("timers", id="new")
        assert (await world.last("new")).time == world.clock.now()
        await world.engine.send("t", "set")
        world.clock.advance(10)
        await until_rung(world, "ring.a")


async def test_effects_are_performed_by_todays_clock(world: World) -> None:
    async with world:
        performed = asyncio.Event()

        @world.engine.handler("work")
        async def work(_: object) -> None:
            performed.set()

        world.clock.advance(HOUR_S)
        await world.engine.start("effects", id="e")
        world.clock.advance(-HOUR_S)
        await world.engine.send("e", "both")
        await until(performed.is_set, "the effect to be performed")
        await world.until_recorded("e", "transition_taken", 2)


async def test_the_system_clock_notices_within_a_second_that_it_was_set() -> None:
    """As after a suspend: the wall clock leaps while the sleep's own clock does not."""
    with freezegun.freeze_time("2026-01-01T00:00:00Z", real_asyncio=True) as frozen:
        clock = SystemClock()
        sleep = asyncio.create_task(clock.sleep_until(clock.now() + HOUR_S * SECOND_NS))
        await asyncio.sleep(0)
        frozen.tick(HOUR_S - 1)
        done, _ = await asyncio.wait({sleep}, timeout=0.01)
        assert not done
        frozen.tick(1)
        async with asyncio.timeout(10):
            await sleep


async def test_a_timer_fires_after_a_suspend(world: World) -> None:
    with freezegun.freeze_time("2026-01-01T00:00:00Z", real_asyncio=True) as frozen:
        async with Engine.open(world.url, charts=[TIMERS]) as world.engine:
            await world.engine.start("timers", id="t")
            await world.engine.send("t", "set")
            frozen.tick(8 * HOUR_S)
            await until_rung(world, "ring.a")
    world.verify()
