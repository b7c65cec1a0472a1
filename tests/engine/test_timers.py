"""Timers: rows that fire once, in order, and outlive the process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import freezegun
import pytest

from statewright.engine import Engine, SystemClock
from statewright.engine.clock import SECOND_NS
from statewright.engine.partitions import partition_of
from statewright.engine.recorder import PARTITIONS_DEFAULT, TimerRow
from statewright.statecharts import Event, chart, state, to
from tests.engine.charts import TIMERS
from tests.engine.worlds import World, until


async def timers_of(world: World, instance_id: str) -> list[TimerRow]:
    return list(await world.engine.on_reader(world.engine.recorder.select_timers, instance_id))


async def rung(world: World, instance_id: str = "t") -> list[str]:
    return list((await world.engine.replay(instance_id)).instance.context["rung"])


async def until_rung(world: World, *expected: str, instance_id: str = "t") -> None:
    async def all_rung() -> bool:
        return await rung(world, instance_id) == list(expected)

    await until(all_rung, f"{expected} to ring in '{instance_id}'")


async def everything_due_has_fired(world: World) -> None:
    """A timer of another instance, set to be due last, has fired: so everything that was due before it has, too."""
    await world.engine.start("timers", id=(name := f"witness-{world.clock.now()}"))
    await world.engine.send(name, "burst")
    await until_rung(world, *(f"now.{n}" for n in range(1, 13)), instance_id=name)


async def test_a_timer_fires_once_when_it_is_due_and_not_before(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        due_at = world.clock.now() + 10 * SECOND_NS
        assert await timers_of(world, "t") == [
            TimerRow("t", "a", due_at, "ring.a", partition_of("t", PARTITIONS_DEFAULT))
        ]

        world.clock.advance(9.999)
        await everything_due_has_fired(world)
        assert await rung(world) == []

        world.clock.advance(0.001)
        await until_rung(world, "ring.a")
        world.clock.advance(100)
        await everything_due_has_fired(world)
        fact = await world.last("t")
        assert await rung(world) == ["ring.a"]
        assert (fact.trigger.kind, fact.trigger.id, fact.time) == ("timer", f"a@{due_at}", due_at)
        assert await timers_of(world, "t") == []


async def test_timers_due_together_fire_in_the_order_in_which_they_were_set(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        for name in ("set", "set_many", "set"):
            await world.engine.send("t", name)

        world.clock.advance(10)

        await until_rung(world, "ring.z", "ring.m", "ring.b", "ring.a")


async def test_sends_without_a_delay_arrive_in_their_order(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")

        await world.engine.send("t", "burst")

        await until_rung(world, *(f"now.{n}" for n in range(1, 13)))


async def test_a_timer_set_again_is_replaced(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        await world.engine.send("t", "set_again")
        assert [row.due_at for row in await timers_of(world, "t")] == [world.clock.now() + 20 * SECOND_NS]

        world.clock.advance(10)
        await everything_due_has_fired(world)
        assert await rung(world) == []
        world.clock.advance(10)
        await until_rung(world, "ring.a")


async def test_a_timer_can_be_cancelled_by_an_action_by_leaving_its_state_and_by_the_end(world: World) -> None:
    async with world:
        for name, events in {"action": ("set", "unset"), "exit": ("wait", "leave"), "end": ("set", "end")}.items():
            await world.engine.start("timers", id=name)
            await world.engine.send(name, events[0])
            assert len(await timers_of(world, name)) == 1

            await world.engine.send(name, events[1])

            assert await timers_of(world, name) == []
        world.clock.advance(100)
        await everything_due_has_fired(world)
        assert [len(await world.facts(name)) for name in ("action", "exit", "end")] == [3, 3, 3]


async def test_timers_survive_a_restart_and_a_reload(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set_many")
        world.clock.advance(5)
        await world.restart()
        world.forget("t")

        world.clock.advance(5)

        await until_rung(world, "ring.z", "ring.m", "ring.b")


async def test_timers_that_were_due_while_nobody_was_there_fire_at_the_next_start_once(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        await world.engine.close()
        world.clock.advance(3_600)

        await world.open()
        await until_rung(world, "ring.a")
        await world.restart()

        await everything_due_has_fired(world)
        assert await rung(world) == ["ring.a"]
        assert (await world.last("t")).time == world.clock.now()


async def test_a_state_that_is_entered_again_waits_anew(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "wait")
        world.clock.advance(59)
        await world.engine.send("t", "again")

        world.clock.advance(59)
        await everything_due_has_fired(world)
        assert (await world.engine.status("t")).configuration == '["waiting"]'
        world.clock.advance(1)
        await world.until_recorded("t", "transition_taken", 3)
        assert (await world.engine.status("t")).configuration == '["timed_out"]'


async def test_many_timers_of_many_instances_each_fire_once(world: World) -> None:
    async with world:
        names = [f"t-{n}" for n in range(200)]
        await asyncio.gather(*(world.engine.start("timers", id=name) for name in names))
        await asyncio.gather(*(world.engine.send(name, "set_many") for name in names))

        world.clock.advance(10)

        for name in names:
            await until_rung(world, "ring.z", "ring.m", "ring.b", instance_id=name)
            assert len(await world.facts(name)) == 5


async def test_a_timer_nobody_handles_is_discarded_with_its_reason(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        await world.engine.send("t", "wait")

        world.clock.advance(10)

        (discarded,) = await world.until_recorded("t", "event_discarded")
        assert "'ring.a'" in discarded.reason
        assert [row.timer_id for row in await timers_of(world, "t")] == ["after.waiting.0"]


def always(context: Mapping[str, Any], event: Event) -> bool:
    return True


@pytest.mark.sqlite  # On a shared store nobody waits for that very time: all look now and then.
async def test_a_timer_that_cannot_fire_now_does_not_hold_up_those_due_next(world: World) -> None:
    """The definition of one instance is not there: its timer is left alone for a while, the other's fires in time."""
    async with world:
        guarded = chart("guarded", states=[state("a", after={"5s": to("b", guard=always)}), state("b")])
        world.charts = [TIMERS, guarded]
        await world.restart()
        await world.engine.start("guarded", id="g")
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        world.charts = [TIMERS]
        await world.restart()
        world.clock.advance(5)
        await until(lambda: world.clock.now() + 5 * SECOND_NS in world.clock.waiting, "it to wait for the other timer")
        world.clock.advance(5)
        await until_rung(world, "ring.a")
        assert len(await timers_of(world, "g")) == 1


async def test_timers_run_on_the_system_clock(world: World) -> None:
    """The machine's clock, made to stand still and to leap: what counts is what the clock says, not what has passed."""
    with freezegun.freeze_time("2026-01-01T00:00:00Z", real_asyncio=True) as frozen:
        async with Engine.open(world.url, charts=[TIMERS]) as world.engine:
            assert isinstance(world.engine.clock, SystemClock)
            started = await world.engine.start("timers", id="t")
            await world.engine.send("t", "set")
            frozen.tick(9)
            await world.engine.send("t", "ring.first")
            assert await rung(world) == ["ring.first"]
        frozen.tick(2)
        async with Engine.open(world.url, charts=[TIMERS]) as world.engine:
            await until_rung(world, "ring.first", "ring.a")
            row = await world.engine.status(started.id)
            assert row.updated_at - row.started_at == 11 * SECOND_NS
    world.verify()
