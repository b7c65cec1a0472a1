"""Opening, closing, reading beside an owner, and being too busy."""

from __future__ import annotations

import asyncio

import pytest

from statewright.engine import Engine, ExternalEvent, InstanceFilter, ManualClock, Outcome
from statewright.engine.alarm import Alarm
from statewright.engine.errors import BusyError, InvalidError, NotFoundError, UnavailableError
from statewright.engine.runtime import QUEUE_MAX
from tests.engine.charts import COUNTER
from tests.engine.worlds import World, until


async def test_closing_answers_what_was_accepted(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        answers = [world.engine.submit(ExternalEvent("c", "nonsense", n, f"e-{n}")) for n in range(3_000)]

        await world.engine.close()

        outcomes = await asyncio.gather(*answers)
        assert [outcome.sequence for outcome in outcomes] == list(range(2, 3_002))
        await world.open()
        assert (await world.engine.status("c")).sequence == 3_001


async def test_closing_twice_and_closing_what_was_never_open_are_harmless(world: World) -> None:
    async with world:
        await world.engine.close()
        await world.engine.close()
        await Engine.open(world.url).close()


async def test_an_engine_is_opened_once(world: World) -> None:
    async with world:
        with pytest.raises(InvalidError, match="expected an engine that was not opened before"):
            await world.engine.__aenter__()


async def test_a_store_has_one_owner(world: World) -> None:
    async with world:
        with pytest.raises(UnavailableError, match="is owned by the process with pid"):
            await World(world.path).open()
    async with world:
        assert list(await world.engine.list()) == []


async def test_a_full_queue_says_so_and_takes_more_once_it_is_shorter(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        answers = [world.engine.submit(ExternalEvent("nobody", "add", 1, f"e-{n}")) for n in range(QUEUE_MAX)]

        with pytest.raises(BusyError, match="20,000 requests are waiting; try again later"):
            await world.engine.send("c", "add", 1)

        failures = await asyncio.gather(*answers, return_exceptions=True)
        assert {type(failure) for failure in failures} == {NotFoundError}
        assert (await world.engine.send("c", "add", 1)).sequence == 2


async def test_a_reader_sees_what_the_owner_has_recorded_and_changes_nothing(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.send("c", "add", 5)
        async with Engine.open(world.url, read_only=True, clock=world.clock) as reader:
            assert (await reader.status("c")).context == '{"total":5,"seen":[5]}'
            assert len(await reader.history("c")) == 2
            assert (await reader.replay("c", to_sequence=1)).instance.context["total"] == 0
            await world.engine.send("c", "add", 1)
            assert (await reader.status("c")).sequence == 3
            assert [row.id for row in await reader.list(InstanceFilter(state="counting"))] == ["c"]

            with pytest.raises(UnavailableError, match="is open for reading only"):
                await reader.send("c", "add", 1)
            with pytest.raises(UnavailableError, match="is open for reading only"):
                await reader.start("counter")
            with pytest.raises(UnavailableError, match="is open for reading only"):
                await reader.cancel("c")
        assert len(await world.facts("c")) == 3


async def test_a_reader_reads_on_when_the_owner_has_gone(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
    async with Engine.open(world.url, read_only=True) as reader:
        assert (await reader.status("c")).status == "active"


async def test_run_due_false_leaves_timers_and_effects_to_another_run(world: World) -> None:
    performed: list[str] = []
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        await world.engine.start("effects", id="e")
        world.handlers["work"] = lambda call: performed.append(call.effect_id)

        await world.restart(run_due=False)
        world.clock.advance(10)
        await world.engine.send("e", "go", 1)
        assert (await world.engine.send("t", "ring.first")).sequence == 3
        assert [row.state for row in await world.engine.effects("e")] == ["pending"]
        await world.restart()

        await world.until_recorded("e", "transition_taken", 2)
        await world.until_recorded("t", "transition_taken", 3)
        assert (await world.engine.replay("t")).instance.context == {"rung": ["ring.first", "ring.a"]}
        assert performed == ["e-2-0"]


async def test_queries_page_and_filter(world: World) -> None:
    async with world:
        for n in range(5):
            await world.engine.start("counter", id=f"c-{n}")
        await world.engine.start("at_once", {"who": "ann"}, id="a")
        await world.engine.pause("c-3")

        ids = [row.id for row in await world.engine.list(InstanceFilter(definition="counter", limit=2, after="c-1"))]
        assert ids == ["c-2", "c-3"]
        assert [row.id for row in await world.engine.list(InstanceFilter(status="completed"))] == ["a"]
        assert [row.id for row in await world.engine.list(InstanceFilter(status="paused"))] == ["c-3"]


async def test_history_and_replay_as_of_a_sequence_or_a_time(world: World) -> None:
    async with world:
        start = world.clock.now()
        await world.engine.start("counter", id="c")
        for n in (1, 2, 3):
            world.clock.advance(1)
            await world.engine.send("c", "add", n)

        assert [fact.sequence for fact in await world.facts("c", after=1, to=3)] == [2, 3]
        assert await world.facts("c", after=4) == []
        as_of_2 = await world.engine.replay("c", to_sequence=2)
        assert (as_of_2.instance.context["total"], len(as_of_2.facts)) == (1, 2)
        at_2 = await world.engine.replay("c", at=start + 2_000_000_000)
        assert (at_2.instance.context["total"], at_2.instance.updated_at) == (3, start + 2_000_000_000)
        for too_early in ({"to_sequence": 0}, {"at": start - 1}):
            with pytest.raises(NotFoundError, match="instance 'c' had not started then"):
                await world.engine.replay("c", **too_early)
        for query in (world.engine.history, world.engine.replay, world.engine.status):
            with pytest.raises(NotFoundError, match="no instance 'nobody'"):
                await query("nobody")


@pytest.mark.parametrize("ticks", range(8))
async def test_an_alarm_never_swallows_the_cancellation_of_who_waits(ticks: int) -> None:
    """At whatever moment after the ring the cancellation comes."""
    alarm = Alarm(ManualClock())

    async def wait_for_ever() -> None:
        while True:
            await alarm.wait(2**62)

    waiting = asyncio.create_task(wait_for_ever())
    for _ in range(3):
        await asyncio.sleep(0)
    alarm.ring()
    for _ in range(ticks):
        await asyncio.sleep(0)

    waiting.cancel()

    await until(waiting.done, "the waiting to end")
    assert waiting.cancelled()


async def test_an_engine_abandoned_mid_request_has_recorded_all_or_nothing(world: World) -> None:
    """The caller is cancelled while it waits: the store is as if it had not been, or as if it had been answered."""
    async with world:
        await world.engine.start("counter", id="c")
        sending = asyncio.create_task(world.engine.send("c", "add", 1, event_id="e"))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

        again = await world.engine.send("c", "add", 1, event_id="e")

        assert again == Outcome("duplicate", "", 2, ("counting",), "active")


async def test_two_engines_in_one_process_share_nothing(world: World) -> None:
    other = World(world.path.with_name("other.db"), COUNTER)
    async with world, other:
        await world.engine.start("counter", id="c")
        with pytest.raises(NotFoundError):
            await other.engine.status("c")
