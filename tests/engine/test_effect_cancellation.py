"""Effects that belong to a state are cancelled when it is left, and what comes all the same is recorded as late."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from statewright.engine import EffectCall, Retry
from statewright.engine.events import InstanceFailed
from tests.engine.paying import PAYING, begin, effects, failing, results, until_effect
from tests.engine.worlds import World, until


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    return World(tmp_path / "store.db", PAYING, url=store_url)


async def test_leaving_the_state_cancels_the_effect_in_the_same_transaction(world: World) -> None:
    async with world:
        await begin(world, "bind")
        assert (await world.engine.replay("e")).instance.cancellable == {"bound": ("e-2-0",)}
        await world.engine.send("e", "stay")
        assert [row.state for row in await effects(world)] == ["pending"]

        await world.engine.send("e", "leave")

        assert [(row.state, row.error) for row in await effects(world)] == [("cancelled", "its state was left")]
        assert (await world.last("e")).effects_cancelled == ("e-2-0",)
        assert (await world.engine.replay("e")).instance.cancellable == {}


@pytest.mark.parametrize("forgotten", [False, True])
async def test_coming_back_cancels_the_old_one_and_asks_for_a_new_one(world: World, forgotten: bool) -> None:
    calls: list[str] = []
    async with world:
        await begin(world, "bind")
        if forgotten:
            world.forget("e")
        await world.engine.send("e", "again")
        assert [row.state for row in await effects(world)] == ["cancelled", "pending"]
        world.engine.handler("pay")(lambda call: calls.append(call.effect_id))
        await until_effect(world, "done", 1, 1)
        assert calls == ["e-3-0"]


async def test_asked_for_and_left_in_one_batch_it_is_not_performed(world: World) -> None:
    calls: list[str] = []
    async with world:
        world.engine.handler("pay")(lambda call: calls.append(call.effect_id))
        await world.engine.start("paying", id="e")
        await asyncio.gather(*(world.engine.send("e", name) for name in ("leave_word", "leave", "leave_word", "leave")))
        await world.settle()
        rows = await effects(world)
        assert [row.state for row in rows] == ["cancelled"] * 4
        assert calls == []


async def test_a_coroutine_under_way_is_cancelled_and_not_tried_again(world: World) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                assert call.cancelled
                ended.set()

        await begin(world, "bind")
        await entered.wait()
        await world.engine.send("e", "leave")
        await ended.wait()
        await world.settle()
        world.clock.advance(3600)
        await world.settle()
        assert [(row.state, row.attempt) for row in await effects(world)] == [("cancelled", 1)]
        assert (await world.types("e"))[-1] == "transition_taken"


async def test_the_late_result_of_a_plain_function_is_recorded_as_discarded(world: World) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def pay(call: EffectCall) -> str:
        entered.set()
        may_end.wait()
        return "paid all the same"

    async with world:
        world.engine.handler("pay")(pay)
        await begin(world, "bind")
        await until(entered.is_set, "the handler to run")
        await world.engine.send("e", "leave")
        assert (await effects(world))[0].state == "cancelled"
        may_end.set()
        (late,) = await world.until_recorded("e", "event_discarded")
        assert (late.trigger.data, late.reason) == (
            "paid all the same",
            "effect 'e-2-0' was cancelled: state 'bound' was left",
        )
        assert await results(world) == []


async def test_a_plain_function_that_stops_when_told_leaves_nothing_to_record(world: World) -> None:
    entered, left, ended = threading.Event(), threading.Event(), threading.Event()

    def pay(call: EffectCall) -> str:
        entered.set()
        left.wait()
        try:
            call.heartbeat()
        finally:
            ended.set()
        return "not reached"

    async with world:
        world.engine.handler("pay")(pay)
        await begin(world, "bind")
        await until(entered.is_set, "the handler to run")
        await world.engine.send("e", "leave")
        left.set()
        await until(ended.is_set, "the handler to end")
        before = await world.types("e")
        world.clock.advance(3600)
        await world.settle()
        assert await world.types("e") == before
        assert [(row.state, row.attempt) for row in await effects(world)] == [("cancelled", 1)]


async def test_a_late_failure_of_a_cancelled_effect_does_not_fail_the_instance(world: World) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def pay(call: EffectCall) -> None:
        entered.set()
        may_end.wait()
        raise OSError("down")

    async with world:
        world.engine.handler("pay", retry=Retry(attempts=1))(pay)
        await begin(world, "bind")
        await until(entered.is_set, "the handler to run")
        await world.engine.send("e", "leave")
        may_end.set()
        await world.engine.close()
        await world.open()
        assert (await world.engine.status("e")).status == "active"
        assert [row.state for row in await effects(world)] == ["cancelled"]


@pytest.mark.parametrize("end", ["complete", "cancel"])
async def test_the_end_of_the_instance_cancels_it(world: World, end: str) -> None:
    ended = asyncio.Event()
    entered = asyncio.Event()
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        await begin(world, "bind")
        await entered.wait()
        if end == "complete":
            assert (await world.engine.send("e", "end")).status == "completed"
        else:
            await world.engine.cancel("e")
        await ended.wait()
        assert [row.state for row in await effects(world)] == ["cancelled"]


async def test_the_failure_of_the_instance_cancels_it(world: World) -> None:
    async with world:
        world.engine.handler("other", retry=Retry(attempts=1))(failing(OSError("down")))
        await begin(world, "both")
        (failed,) = await world.until_recorded("e", "instance_failed")
        assert isinstance(failed, InstanceFailed)
        assert failed.effects_cancelled == ("e-2-0",)
        assert [row.state for row in await effects(world)] == ["cancelled", "failed"]


async def test_a_result_that_waits_for_the_resume_is_dropped_if_the_state_is_left_before(world: World) -> None:
    async with world:
        await begin(world, "bind")
        await world.engine.pause("e")
        await world.engine.send("e", "leave")
        world.engine.handler("pay")(lambda call: "paid")
        await world.until_recorded("e", "event_deferred", 2)
        await world.engine.resume("e")
        instance = (await world.engine.replay("e")).instance
        assert (instance.configuration, instance.deferred, instance.cancellable) == (("ready",), (), {})
        assert [row.state for row in await effects(world)] == ["done"]
        assert await results(world) == []


async def test_a_result_that_waits_for_the_resume_counts_if_the_state_is_not_left(world: World) -> None:
    async with world:
        await begin(world, "bind")
        await world.engine.pause("e")
        world.engine.handler("pay")(lambda call: "paid")
        await world.until_recorded("e", "event_deferred")
        await world.restart()
        await world.engine.resume("e")
        assert await results(world) == ["paid"]
        assert (await world.engine.replay("e")).instance.cancellable == {}


async def test_an_effect_that_is_not_bound_goes_on(world: World) -> None:
    async with world:
        await begin(world, "plain")
        await world.engine.send("e", "end")
        world.engine.handler("pay")(lambda call: "paid")
        await until_effect(world, "done", 1)
