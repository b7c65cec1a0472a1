"""Followers: every fact, in the order of the log, from where they stand, again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from statewright.engine import LoggedFact
from tests.engine.worlds import World, until


class Ledger:
    """A projection that writes down what it is given; its position is durable in so far as the object is."""

    name = "ledger"

    def __init__(self, *, failing: int = 0) -> None:
        self.entries: list[LoggedFact] = []
        self.calls: list[int] = []
        self._failing = failing

    async def position(self) -> int:
        return self.entries[-1].position if self.entries else 0

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        self.calls.append(len(facts))
        if self._failing and len(self.calls) <= self._failing:
            raise ConnectionError("the read model can't be reached")
        self.entries += facts

    def seen(self, instance_id: str) -> list[int]:
        return [entry.fact.sequence for entry in self.entries if entry.fact.instance_id == instance_id]


async def test_a_follower_gets_what_was_and_what_comes_in_order(world: World) -> None:
    async with world:
        for name in ("c", "d"):
            await world.engine.start("counter", id=name)
        ledger = Ledger()
        await world.engine.attach(ledger)
        await until(lambda: len(ledger.entries) == 2, "the facts that were there")

        await asyncio.gather(*(world.engine.send(name, "pass", n) for n in range(700) for name in ("c", "d")))

        await until(lambda: len(ledger.entries) == 1_402, "the facts that came")
        positions = [entry.position for entry in ledger.entries]
        assert positions == sorted(set(positions))
        assert ledger.seen("c") == ledger.seen("d") == list(range(1, 702))


async def test_a_follower_goes_on_where_it_stood_in_the_next_life(world: World) -> None:
    ledger = Ledger()
    async with world:
        await world.engine.attach(ledger)
        await world.engine.start("counter", id="c")
        await until(lambda: ledger.seen("c") == [1], "the start")
        await world.restart()
        await world.engine.send("c", "add", 1)

        await world.engine.attach(ledger)

        await until(lambda: ledger.seen("c") == [1, 2], "the event")


async def test_a_follower_that_fails_is_given_the_same_again_later(world: World) -> None:
    ledger, other = Ledger(failing=2), Ledger()

    def failed(times: int) -> bool:
        return len(ledger.calls) == times and bool(world.clock.waiting)

    async with world:
        await world.engine.attach(ledger)
        await world.engine.attach(other)
        await world.engine.start("counter", id="c")
        for attempt in (1, 2):
            await until(partial(failed, attempt), f"failure {attempt}")
            assert ledger.entries == []
            world.clock.advance(1)

        await until(lambda: ledger.seen("c") == [1], "the third attempt")
        await until(lambda: other.seen("c") == [1], "the other follower")
        assert ledger.calls == [1, 1, 1]
