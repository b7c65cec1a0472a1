"""While an instance is held nothing but modifications is decided about it; what comes waits and keeps its order."""

from __future__ import annotations

import asyncio

import pytest

from statewright.engine.errors import BusyError, NotFoundError, UnavailableError
from statewright.engine.modification import modify
from tests.engine.charts import COUNTER
from tests.engine.modified import LANES
from tests.engine.worlds import World


@pytest.fixture
def counting(world: World) -> World:
    world.charts = (COUNTER, LANES)
    return world


async def test_what_comes_meanwhile_waits_and_is_decided_in_its_order(counting: World) -> None:
    async with counting as world:
        for instance_id in ("a", "b"):
            await world.engine.start("counter", id=instance_id)
        async with world.engine.hold("a"):
            sent = [asyncio.ensure_future(world.engine.send("a", "add", {"n": n}, event_id=f"{n}")) for n in range(5)]
            paused = asyncio.ensure_future(world.engine.pause("a"))
            await world.engine.send("b", "add", {"n": 1})  # Decided after whatever else could be.
            assert not any(one.done() for one in (*sent, paused))
            assert (await world.engine.status("a")).sequence == 1
        assert [(await one).sequence for one in sent] == [2, 3, 4, 5, 6]
        assert (await paused).status == "paused"
        assert [fact.trigger.id for fact in await world.facts("a", after=1, to=6)] == [f"{n}" for n in range(5)]


async def test_what_came_before_is_decided_before(counting: World) -> None:
    """Also if the hold is over before that."""
    async with counting as world:
        await world.engine.start("counter", id="a")
        before = asyncio.ensure_future(world.engine.send("a", "add", {"n": 1}))
        await asyncio.sleep(0)  # It is in the queue.
        async with world.engine.hold("a"):
            after = asyncio.ensure_future(world.engine.send("a", "add", {"n": 2}))
            await asyncio.sleep(0)
        assert ((await before).sequence, (await after).sequence) == (2, 3)


async def test_a_modification_passes(counting: World) -> None:
    async with counting as world:
        await world.engine.start("lanes", id="a")
        async with world.engine.hold("a"):
            late = asyncio.ensure_future(world.engine.send("a", "stop"))
            await asyncio.sleep(0)
            sequence = (await world.engine.status("a")).sequence
            outcome = await modify(world.engine, "a", ["late"], expected_sequence=sequence)
            assert (outcome.kind, outcome.configuration) == ("recorded", ("late",))
        # It was sent before, and meets what the instance is after.
        assert (await late).kind == "refused"


async def test_holds_of_one_instance_take_turns(counting: World) -> None:
    async with counting as world:
        held: list[int] = []

        async def hold(number: int) -> None:
            async with world.engine.hold("a"):
                held.append(number)
                await world.engine.on_reader(lambda: None)
                assert held[-1] == number

        async with world.engine.hold("another"):
            await asyncio.gather(*(hold(number) for number in range(10)))
        assert held == list(range(10))


async def test_an_error_or_a_cancellation_ends_a_hold(counting: World) -> None:
    async with counting as world:
        await world.engine.start("counter", id="a")
        sent = []

        async def fail() -> None:
            async with world.engine.hold("a"):
                sent.append(asyncio.ensure_future(world.engine.send("a", "add", {"n": 1})))
                await asyncio.sleep(0)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert (await sent[0]).sequence == 2

        begun = asyncio.Event()

        async def hold() -> None:
            async with world.engine.hold("a"):
                begun.set()
                await asyncio.Event().wait()

        holding = asyncio.ensure_future(hold())
        await begun.wait()
        sent.append(asyncio.ensure_future(world.engine.send("a", "add", {"n": 1})))
        await asyncio.sleep(0)
        holding.cancel()
        assert (await sent[1]).sequence == 3


async def test_what_waits_counts_for_the_queues_bound(counting: World) -> None:
    counting.options["queue_max"] = 3
    async with counting as world:
        await world.engine.start("counter", id="a")
        async with world.engine.hold("a"):
            sent = [asyncio.ensure_future(world.engine.send("a", "add", {"n": 1})) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(BusyError, match="3 requests are waiting"):
                await world.engine.send("b", "add")
        assert [(await one).sequence for one in sent] == [2, 3, 4]
        with pytest.raises(NotFoundError):
            await world.engine.send("b", "add")


async def test_closing_decides_what_waits(counting: World) -> None:
    async with counting as world:
        await world.engine.start("counter", id="a")
        async with world.engine.hold("a"):
            sent = asyncio.ensure_future(world.engine.send("a", "add", {"n": 1}))
            await asyncio.sleep(0)
            await world.engine.close()
            assert (await sent).sequence == 2
        await world.open(read_only=True)
        with pytest.raises(UnavailableError, match="open for reading only"):
            world.engine.hold("a")
