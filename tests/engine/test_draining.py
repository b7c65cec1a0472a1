"""Coming to rest: what runs may end, what does not is put back, and projections take in what was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from statewright.engine import EffectCall
from statewright.engine.errors import UnavailableError
from statewright.engine.log import LoggedFact
from statewright.engine.recorder import Backlog
from tests.engine.charts import COUNTER, EFFECTS, TIMERS
from tests.engine.worlds import World, until

SOON_S = 0.05
"""Long enough to show that something does not wait for what never comes."""


class Copy:
    """A projection that keeps the sequences of what it was fed, once `open` is set."""

    name = "copy"

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.seen: list[int] = []

    async def position(self) -> int:
        return 0

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        await self.open.wait()
        self.seen += [entry.fact.sequence for entry in facts]


async def test_a_running_effect_may_end_and_its_result_is_recorded(world: World) -> None:
    world.charts = [EFFECTS]
    running, may_end = asyncio.Event(), asyncio.Event()

    async def work(call: EffectCall) -> str:
        running.set()
        await may_end.wait()
        return "done"

    world.handlers["work"] = work
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await running.wait()

        draining = asyncio.create_task(world.engine.drain(10))
        await asyncio.sleep(0)
        may_end.set()
        await draining

        assert [(row.state, row.attempt) for row in await world.engine.effects("e")] == [("done", 1)]
        assert (await world.types("e"))[-1] == "transition_taken"
        assert (await world.engine.status("e")).context == '{"results":["done"]}'


async def test_an_effect_that_does_not_end_is_put_back_and_performed_by_the_next_run(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.charts = [EFFECTS]
    attempts: list[int] = []

    async def work(call: EffectCall) -> str:
        attempts.append(call.attempt)
        if call.attempt == 1:
            await asyncio.Event().wait()
        return "done"

    world.handlers["work"] = work
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await until(lambda: attempts == [1], "the first attempt")

        await world.engine.drain(SOON_S)

        (row,) = await world.engine.effects("e")
        assert (row.state, row.error) == ("pending", "the engine was stopped")
        assert row.due_at == world.clock.now(), "no lease has to run out"
        (line,) = [record for record in caplog.records if "put back" in record.message]
        assert (line.__dict__["instance"], line.__dict__["effect"]) == ("e", row.effect_id)
        await world.restart()
        await until(lambda: attempts == [1, 2], "the second attempt")
        await world.settle()
        assert (await world.engine.status("e")).context == '{"results":["done"]}'


async def test_nothing_new_begins(world: World) -> None:
    """No timer fires, no effect is claimed, no request is taken; all of it is there for the next run."""
    world.charts = [EFFECTS, TIMERS]
    performed: list[str] = []
    world.handlers["work"] = lambda call: performed.append(call.effect_id)
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        asked = [world.engine.send("e", "end", event_id="e-1")]
        answered = await asyncio.gather(*asked)
        await world.settle()

        await world.engine.drain(1)
        world.clock.advance(60)
        with pytest.raises(UnavailableError, match="the engine is closing"):
            await world.engine.send("e", "go")

        assert [outcome.kind for outcome in answered] == ["recorded"]
        assert len(performed) == 1
        assert (await world.engine.status("t")).sequence == 2
        await world.restart()
        await world.until_recorded("t", "transition_taken", 2)
        assert len(performed) == 1


async def test_what_was_accepted_is_answered_and_projections_take_it_in(world: World) -> None:
    world.charts = [COUNTER]
    copy = Copy()
    copy.open.set()
    async with world:
        await world.engine.attach(copy)
        await world.engine.start("counter", id="c")
        answers = [asyncio.ensure_future(world.engine.send("c", "add", n, event_id=f"e-{n}")) for n in range(500)]
        await asyncio.sleep(0)

        await world.engine.drain(10)

        assert [outcome.sequence for outcome in await asyncio.gather(*answers)] == list(range(2, 502))
        assert copy.seen == list(range(1, 502))


async def test_a_projection_that_is_stuck_is_not_waited_for_longer_than_the_bound(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.charts = [COUNTER]
    async with world:
        await world.engine.attach(Copy())
        await world.engine.start("counter", id="c")

        await world.engine.drain(SOON_S)

        assert "projection 'copy' stops at 0 of 1; it goes on there with the next run" in caplog.text


async def test_signals_say_what_waits(world: World) -> None:
    world.charts = [EFFECTS, TIMERS]
    copy = Copy()
    async with world:
        await world.engine.attach(copy)
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "both")
        world.clock.advance(7)

        signals = await world.engine.signals()

        assert (signals.queue, signals.recorded, signals.timers_due, signals.effects_running) == (0, 2, 0, 0)
        assert signals.recorded_per_second == round(2 / 7, 1)
        assert signals.effects == {"perform.work": Backlog(1, 1), "perform.other": Backlog(1, 1)}
        assert signals.effects_late_seconds == 0, "nobody here performs them"
        assert (signals.projections["copy"].facts, signals.projections["copy"].seconds) == (2, 7.0)
