"""Stored and pinned definitions."""

from __future__ import annotations

from typing import Any

import pytest

from statewright.engine.errors import AlreadyExistsError, NotFoundError, UnavailableError
from statewright.statecharts import Chart, chart, final, state, to
from tests.engine.charts import APPROVAL, COUNTER, TIMERS, from_yaml
from tests.engine.worlds import World


def door(version: str, opens_on: str) -> Chart:
    return from_yaml(f"""
name: door
version: "{version}"
initial: shut
states:
  shut: {{on: {{{opens_on}: open}}}}
  open: {{on: {{shut: shut}}}}
""")


def is_even(context: Any, event: Any) -> bool:
    return bool(event.data % 2 == 0)


def gate(version: str = "1", name: str = "gate", guard: Any = is_even) -> Chart:
    states = [state("shut", on={"try": to("open", guard=guard)}), final("open")]
    return chart(name, version=version, initial="shut", states=states)


async def test_an_instance_keeps_the_definition_it_was_started_with(world: World) -> None:
    world.charts = [door("1", "push")]
    async with world:
        await world.engine.start("door", id="old")
        world.charts = [door("2", "pull")]
        await world.restart()
        await world.engine.start("door", id="new")

        assert (await world.engine.send("old", "pull")).kind == "refused"
        assert (await world.engine.send("old", "push")).configuration == ("open",)
        assert (await world.engine.send("new", "push")).kind == "refused"
        assert (await world.engine.send("new", "pull")).configuration == ("open",)
        rows = {row.id: row.version for row in await world.engine.list()}
        assert rows == {"old": "1", "new": "2"}


async def test_an_older_version_can_still_be_started_by_its_name(world: World) -> None:
    world.charts = [door("1", "push")]
    async with world:
        world.charts = [door("2", "pull")]
        await world.restart()

        await world.engine.start("door", id="old", version="1")

        assert (await world.engine.send("old", "push")).kind == "recorded"
        with pytest.raises(AlreadyExistsError):
            await world.engine.start("door", id="old", version="2")


async def test_the_same_version_with_other_content_is_refused(world: World) -> None:
    world.charts = [door("1", "push")]
    async with world:
        await world.engine.start("door", id="d")
        await world.engine.close()
        world.charts = [door("1", "pull")]

        with pytest.raises(AlreadyExistsError, match=r"'door' version '1' is stored with digest .* a new version"):
            await world.open()

        world.charts = [door("1", "push")]
        await world.open()
        assert (await world.engine.send("d", "push")).kind == "recorded"


async def test_what_is_stored_needs_no_charts(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        world.charts = []
        await world.restart()

        await world.engine.send("d", "submit")
        await world.engine.start("counter", id="c")

        assert sorted(world.engine.charts) == ["approval", "at_once", "counter", "effects", "timers"]
        assert world.engine.charts["approval"].digest == APPROVAL.digest
        assert (await world.engine.status("d")).configuration == '["review"]'


async def test_of_a_stored_name_the_version_stored_last_is_started(world: World) -> None:
    world.charts = [door("1", "push"), door("2", "pull")]
    async with world:
        world.charts = []
        await world.restart()

        await world.engine.start("door", id="d")

        assert (await world.engine.status("d")).version == "2"


async def test_a_chart_whose_function_is_gone_is_unavailable_and_records_nothing(world: World) -> None:
    world.charts = [gate(), COUNTER]
    async with world:
        await world.engine.start("gate", id="g")
        world.charts = [COUNTER]
        await world.restart()

        with pytest.raises(UnavailableError, match=r"'gate' version '1' can't be used here: .*'is_even'"):
            await world.engine.send("g", "try", 2, event_id="e-1")
        with pytest.raises(UnavailableError, match=r"'gate' version '1' can't be used here: .*'is_even'"):
            await world.engine.start("gate", id="h")

        assert await world.types("g") == ["instance_started"]
        assert (await world.engine.start("counter", id="c")).status == "active"
        world.charts = [gate()]
        await world.restart()
        assert (await world.engine.send("g", "try", 2, event_id="e-1")).status == "completed"


async def test_the_newest_version_being_unusable_does_not_bring_back_an_older_one(world: World) -> None:
    world.charts = [door("1", "push"), gate("2", "door")]
    async with world:
        world.charts = []
        await world.restart()

        with pytest.raises(UnavailableError, match=r"'door' version '2' can't be used here"):
            await world.engine.start("door", id="d")

        assert (await world.engine.start("door", id="d", version="1")).status == "active"


async def test_functions_of_the_same_name_in_two_charts_are_two_functions(world: World) -> None:
    def never() -> Any:
        def is_even(context: Any, event: Any) -> bool:
            return False

        return is_even

    world.charts = [gate("1", "even")]
    async with world:
        await world.engine.start("even", id="e")
        world.charts = [gate("2", "even"), gate("1", "never", never())]
        await world.restart()
        await world.engine.start("never", id="n")

        assert (await world.engine.send("e", "try", 2)).status == "completed"
        assert (await world.engine.send("n", "try", 2)).kind == "refused"


async def test_an_engine_that_only_reads_stores_no_definition(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        reader = World(world.path, *world.charts, door("1", "push"))
        await reader.open(read_only=True)
        assert (await reader.engine.status("c")).status == "active"
        await reader.engine.close()

        with pytest.raises(NotFoundError, match="no definition 'door'"):
            await world.engine.start("door")


def test_the_test_charts_are_told_apart_by_their_digests() -> None:
    assert len({chart.digest for chart in (APPROVAL, COUNTER, TIMERS)}) == 3
