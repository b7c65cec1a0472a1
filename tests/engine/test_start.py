"""Starting instances."""

from __future__ import annotations

import re

import pytest

from statewright.engine import Started
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError, TooLargeError
from statewright.statecharts import ContextError
from tests.engine.worlds import World, type_of


async def test_a_start_without_an_id_gets_one_that_sorts_by_time(world: World) -> None:
    async with world:
        first = await world.engine.start("counter")
        world.clock.advance(1)
        second = await world.engine.start("counter")

        assert first == Started(first.id, 1, ("counting",), "active")
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first.id)
        assert first.id < second.id


async def test_a_start_records_what_it_was_given_and_what_came_of_it(world: World) -> None:
    async with world:
        started = await world.engine.start("approval", {"amount": 5}, id="d-17", actor="ann")

        fact = await world.last("d-17")
        row = await world.engine.status("d-17")
        assert started == Started("d-17", 1, ("draft",), "active")
        assert (type_of(fact), fact.input, fact.actor) == ("instance_started", {"amount": 5}, "ann")
        assert fact.context == {"amount": 5, "approvals": 0, "notes": []}
        assert (row.definition, row.status, row.configuration) == ("approval", "active", '["draft"]')
        assert row.started_at == row.updated_at == fact.time == world.clock.now()


async def test_the_same_start_again_gets_the_same_answer_even_after_events_and_a_restart(world: World) -> None:
    async with world:
        first = await world.engine.start("approval", {"amount": 5}, id="d-17")
        await world.engine.send("d-17", "submit")
        assert await world.engine.start("approval", {"amount": 5}, id="d-17") == first
        assert await world.engine.start("approval", {"amount": 5}, id="d-17", version="1") == first

        await world.restart()

        assert await world.engine.start("approval", {"amount": 5}, id="d-17") == first
        assert await world.types("d-17") == ["instance_started", "transition_taken"]


@pytest.mark.parametrize(("definition", "context"), [("approval", {"amount": 6}), ("counter", {})])
async def test_another_start_with_the_same_id_is_refused(
    world: World, definition: str, context: dict[str, int]
) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d-17")

        with pytest.raises(
            AlreadyExistsError, match="instance 'd-17' exists: it was started as 'approval' version '1'"
        ):
            await world.engine.start(definition, context, id="d-17")

        assert await world.types("d-17") == ["instance_started"]


async def test_the_same_start_twice_in_one_batch_starts_once(world: World) -> None:
    async with world:
        one, two = world.engine.start("counter", id="c"), world.engine.start("counter", id="c")

        assert await one == await two
        assert await world.types("c") == ["instance_started"]


async def test_an_unknown_definition_is_not_found(world: World) -> None:
    async with world:
        with pytest.raises(NotFoundError, match="no definition 'nosuch'; there are: approval, at_once, counter"):
            await world.engine.start("nosuch")
        with pytest.raises(NotFoundError, match="no definition 'counter' version '2'"):
            await world.engine.start("counter", version="2")


@pytest.mark.parametrize(
    ("context", "error", "message"),
    [
        ({"amount": "much"}, ContextError, "'amount' expected int"),
        ({}, ContextError, "'amount' .* is missing"),
        ({"amount": 1, "amuont": 1}, ContextError, "amuont"),
        ([1, 2], InvalidError, "expected the context to be an object of fields, got list"),
        ("amount", InvalidError, "got str"),
        ({"amount": {1, 2}.__iter__}, InvalidError, "expected the context to be JSON"),
        ({"amount": 1 << 70}, ContextError, "'amount' expected int"),
        ({"amount": "\ud800"}, InvalidError, "expected the context to be JSON"),
        ({"amount": 1, "notes": ["x" * 1_048_600]}, TooLargeError, "at most 1,048,576 bytes as JSON, got 1,0"),
    ],
)
async def test_a_context_that_does_not_fit_starts_nothing(
    world: World, context: object, error: type[Exception], message: str
) -> None:
    async with world:
        with pytest.raises(error, match=message):
            await world.engine.start("approval", context, id="d-17")  # type: ignore[arg-type]

        with pytest.raises(NotFoundError, match="no instance 'd-17'"):
            await world.engine.status("d-17")


@pytest.mark.parametrize("instance_id", ["", "a b", "a.b", "ü", "x" * 129, 7])
async def test_an_id_that_no_subject_can_carry_is_refused(world: World, instance_id: str) -> None:
    async with world:
        with pytest.raises(InvalidError, match="expected an instance id of the form"):
            await world.engine.start("counter", id=instance_id)


async def test_a_chart_can_complete_as_it_starts(world: World) -> None:
    async with world:
        started = await world.engine.start("at_once", {"who": "ann"}, id="a")

        fact, row = await world.last("a"), await world.engine.status("a")
        assert (started.status, started.sequence) == ("completed", 1)
        assert (fact.status, fact.output) == ("completed", {"greeted": "ann"})
        assert (row.status, row.ended_at) == ("completed", world.clock.now())
        assert [effect.name for effect in await world.engine.effects("a")] == ["greet"]
