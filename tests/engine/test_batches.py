"""Many requests in one transaction: each decided on what those before it have left."""

from __future__ import annotations

import asyncio
from typing import Any

from statewright.engine import Engine, ExternalEvent, Outcome, Started
from statewright.engine.errors import IdReusedError
from statewright.engine.requests import ControlRequest, StartRequest
from tests.engine.worlds import World


def submit_together(engine: Engine, *requests: Any) -> list[asyncio.Future[Any]]:
    """Queued before the engine sees the first, so they share a batch."""
    return [engine.submit(request) for request in requests]


async def answers_of(engine: Engine, *requests: Any) -> list[Any]:
    return await asyncio.gather(*submit_together(engine, *requests), return_exceptions=True)


async def test_events_of_one_instance_apply_in_the_order_of_arrival(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")

        answers = await answers_of(world.engine, *(ExternalEvent("c", "add", n, f"e-{n}") for n in range(500)))

        context = (await world.engine.replay("c")).instance.context
        assert context == {"total": sum(range(500)), "seen": list(range(500))}
        assert [answer.sequence for answer in answers] == list(range(2, 502))


async def test_a_start_and_its_events_can_share_a_batch(world: World) -> None:
    async with world:
        started, added, stopped, refused, paused = await answers_of(
            world.engine,
            StartRequest("c", "counter", {}),
            ExternalEvent("c", "add", 1, "e-1"),
            ExternalEvent("c", "stop", None, "e-2"),
            ExternalEvent("c", "add", 1, "e-3"),
            ControlRequest("c", "pause"),
        )

        assert started == Started("c", 1, ("counting",), "active")
        assert (added.sequence, stopped.status, refused.kind) == (2, "completed", "refused")
        assert (paused.kind, paused.reason) == ("refused", "instance 'c' is completed")


async def test_duplicates_in_one_batch_are_recorded_once(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")

        first, other, again, reused = await answers_of(
            world.engine,
            ExternalEvent("c", "add", 1, "e-1"),
            ExternalEvent("c", "stop", None, "e-2"),
            ExternalEvent("c", "add", 1, "e-1"),
            ExternalEvent("c", "add", 2, "e-1"),
        )

        assert first == Outcome("recorded", "", 2, ("counting",), "active")
        assert other.status == "completed"
        assert again == Outcome("duplicate", "", 2, ("counting",), "active")
        assert isinstance(reused, IdReusedError)
        assert await world.types("c") == ["instance_started", "transition_taken", "transition_taken"]


async def test_what_arrives_together_is_one_transaction(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await asyncio.gather(*(world.engine.start("counter", id=f"c-{n}") for n in range(20)))
        reader = world.connect()
        facts = "SELECT count(*) FROM stored_events"
        before = reader.execute(facts).fetchone()[0]
        seen = {before}

        answers = submit_together(world.engine, *(ExternalEvent(f"c-{n}", "add", n, "e") for n in range(20)))
        while not all(answer.done() for answer in answers):
            seen.add(reader.execute(facts).fetchone()[0])
            await asyncio.sleep(0)
        seen.add(reader.execute(facts).fetchone()[0])
        reader.close()

        assert seen == {before, before + 20}


async def test_a_large_batch_is_written_in_two_halves_that_overlap(world: World) -> None:
    async with world:
        await asyncio.gather(*(world.engine.start("counter", id=f"c-{n}") for n in range(100)))

        outcomes = await answers_of(world.engine, *(ExternalEvent(f"c-{n}", "add", n, "e") for n in range(100)))
        again = await answers_of(world.engine, *(ExternalEvent("c-7", "add", n, f"f-{n}") for n in range(100)))

        assert all(outcome.kind == "recorded" for outcome in outcomes)
        assert [outcome.sequence for outcome in again] == list(range(3, 103))


async def test_an_answer_is_given_only_for_what_is_on_disk(world: World) -> None:
    """Whenever an answer is seen, another connection sees its fact and its row."""
    async with world:
        await world.engine.start("counter", id="c")
        reader = world.connect()

        async def add(n: int) -> None:
            outcome = await world.engine.send("c", "add", n)
            durable = reader.execute(
                "SELECT max(originator_version) FROM stored_events WHERE originator_id = 'c'"
            ).fetchone()[0]
            row = reader.execute("SELECT sequence FROM instances WHERE id = 'c'").fetchone()[0]
            assert durable >= outcome.sequence
            assert row >= outcome.sequence

        await asyncio.gather(*(add(n) for n in range(100)))
        reader.close()
