"""SCXML charts in the durable engine: their sends are timers, their data is the context."""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.statecharts import Chart
from tests.engine.worlds import World, until

HEAD = '<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" name="doc" binding="late">'

TICKS = f"""{HEAD}
  <datamodel><data id="n" expr="0"/><data id="from"/><data id="me" expr="_sessionid"/></datamodel>
  <state id="s">
    <onentry><send event="ask"/>
      <send event="tick" id="t" delay="1s"/><send event="tick" id="t" delay="2s"/><send event="tick" id="u" delay="3s"/>
    </onentry>
    <transition event="ask"><assign location="from" expr="_event.origin"/>
      <send event="answer" targetexpr="_event.origin" typeexpr="_event.origintype"/></transition>
    <transition event="answer" target="waiting"/>
  </state>
  <state id="waiting">
    <transition event="tick"><assign location="n" expr="n + 1"/></transition>
    <transition event="stop"><cancel sendid="t"/></transition>
    <transition event="bad"><assign location="n" expr="n / 0"/></transition>
    <transition event="error.execution" target="f"/>
  </state>
  <final id="f"/>
</scxml>"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store.db", Chart.from_scxml(TICKS.encode()))


async def n_is(world: World, n: int, instance_id: str = "i") -> None:
    async def is_n() -> bool:
        return bool((await world.engine.replay(instance_id)).instance.context["n"] == n)

    await until(is_n, f"n to be {n}")


async def is_in(world: World, state: str) -> None:
    async def there() -> bool:
        return (await world.engine.replay("i")).instance.configuration == (state,)

    await until(there, f"to be in {state}")


async def test_a_session_is_its_instance_and_its_sends_come_back_to_it(world: World) -> None:
    async with world:
        await world.engine.start("doc", id="i")
        await is_in(world, "waiting")
        context = (await world.engine.replay("i")).instance.context
        assert (context["me"], context["from"]) == ("i", "#_scxml_i")


async def test_two_sends_of_one_id_are_two_timers_after_a_restart_too(world: World) -> None:
    async with world:
        await world.engine.start("doc", id="i")
        await is_in(world, "waiting")
        await world.restart()
        world.clock.advance(3)
        await n_is(world, 3)


async def test_cancel_takes_all_of_that_id(world: World) -> None:
    async with world:
        await world.engine.start("doc", id="i")
        await is_in(world, "waiting")
        world.forget("i")
        await world.engine.send("i", "stop")
        world.clock.advance(3)
        await n_is(world, 1)
        assert (await world.engine.replay("i")).instance.timers == {}


SIGNED = f"""{HEAD}
  <datamodel><data id="came" expr="[]"/></datamodel>
  <state id="s">
    <onentry><send event="later" id="mine" delay="5s"/></onentry>
    <transition event="later">
      <assign location="came" expr="[_event.sendid, _event.origin, _event.origintype, _event.name]"/>
    </transition>
  </state>
</scxml>"""


@pytest.mark.parametrize("paused", [False, True])
async def test_a_delayed_send_says_whose_it_is_deferred_or_not(world: World, paused: bool) -> None:
    world.charts = [Chart.from_scxml(SIGNED.encode())]
    async with world:
        await world.engine.start("doc", id="i")
        if paused:
            await world.engine.pause("i")
        world.clock.advance(5)
        if paused:
            await world.until_recorded("i", "event_deferred")
            await world.restart()
            await world.engine.resume("i")
        (fact,) = await world.until_recorded("i", "transition_taken")
        processor = "http://www.w3.org/TR/scxml/#SCXMLEventProcessor"
        assert fact.context["came"] == ["mine", "#_scxml_i", processor, "later"]


async def test_an_error_in_an_expression_is_an_event(world: World) -> None:
    async with world:
        await world.engine.start("doc", id="i")
        await is_in(world, "waiting")
        outcome = await world.engine.send("i", "bad")
        assert (outcome.kind, outcome.configuration, outcome.status) == ("recorded", ("f",), "completed")
