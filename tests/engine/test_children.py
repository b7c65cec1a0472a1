"""Child workflows: instances that a state invokes, with histories of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statewright.engine.calls import PermanentError
from statewright.engine.errors import AlreadyExistsError
from statewright.engine.instance import fold
from statewright.engine.recorder import InstanceFilter
from statewright.engine.relatives import child_id
from statewright.statecharts import Chart, load_chart
from statewright.statecharts.simulate import Simulation, parse_token
from tests.engine.charts import from_yaml
from tests.engine.worlds import World

ORDER = from_yaml("""
name: order
context:
  amount: int
  paid: {type: int, default: 0}
  heard: {type: list(string), default: []}
initial: paying
states:
  paying:
    invoke:
      id: payment
      data: {amount: context.amount}
      chart:
        name: payment
        context: {amount: int, tries: {type: int, default: 0}}
        initial: charging
        states:
          charging:
            exit: [{perform: {name: tidy}}]
            on:
              charged: {target: paid, guard: context.amount > 0}
              ask: {actions: [{send: {event: asked, target: "#_parent", data: context.amount}}]}
              later: {actions: [{send: {event: asked, target: "#_parent", data: "1", delay: 1s}}]}
              lost: {actions: [{send: {event: gone, target: "#_scxml_nobody"}}]}
              error.communication: {actions: [{assign: {tries: context.tries + 1}}]}
              break: {actions: [{perform: {name: break}}]}
          paid: {type: final, output: {amount: context.amount}}
    on:
      done.invoke.payment:
        target: shipped
        actions: [{assign: {paid: event.data.amount}}]
      error.invoke.payment:
        target: stuck
        actions: [{assign: {heard: "context.heard + [string(event.data.message)]"}}]
      asked: {actions: [{assign: {heard: "context.heard + ['asked ' + string(event.data)]"}}]}
      tell: {actions: [{send: {event: ask, target: "#_payment"}}, {send: {event: charged, target: "#_payment"}}]}
      retry: {target: paying, internal: false}
      skip: shipped
  shipped:
    on: {close: closed}
  stuck: {on: {again: paying}}
  closed: {type: final}
""")
"""Invokes a payment, hears what it says, goes on when it is paid."""

BARE = from_yaml("""
name: bare
initial: s
states:
  s:
    invoke: {id: w, chart: {name: worker, initial: a, states: {a: {on: {fail: {actions: [{perform: {name: break}}]}}}}}}
""")
"""Has no idea that a child may fail."""


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    def breaks(_: Any) -> None:
        raise PermanentError("it broke")

    world = World(tmp_path / "store.db", ORDER, BARE, url=store_url)
    world.handlers = {"break": breaks, "tidy": lambda _: None}
    return world


async def started(world: World, definition: str = "order", **context: Any) -> str:
    """Start "o", and the child that it invokes; the child's id."""
    await world.engine.start(definition, context or ({"amount": 5} if definition == "order" else {}), id="o")
    await world.settle()
    children = (await world.engine.replay("o")).instance.children
    (child,) = children.values()
    return child.instance_id


async def context(world: World, instance_id: str = "o") -> dict[str, Any]:
    return dict((await world.engine.replay(instance_id)).instance.context)


async def status(world: World, instance_id: str) -> tuple[str, tuple[str, ...]]:
    instance = (await world.engine.replay(instance_id)).instance
    return instance.status, instance.configuration


async def test_parent_and_child_know_each_other(world: World) -> None:
    async with world:
        child = await started(world)
        (first,) = await world.facts(child)
        assert (first.parent.instance_id, first.parent.invokeid, first.definition) == ("o", "payment", "payment")
        assert first.input == {"amount": 5}
        (effect,) = (await world.facts("o"))[0].effects
        assert (effect.kind, child) == ("start", child_id(effect.effect_id))
        row = await world.engine.status(child)
        assert (row.parent, row.definition) == ("o", "payment")
        assert (await world.engine.status("o")).parent is None


async def test_its_result_is_the_parents_event(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.send(child, "charged")
        await world.settle()
        assert await status(world, "o") == ("active", ("shipped",))
        assert (await context(world))["paid"] == 5
        fact = await world.last("o")
        assert (fact.trigger.name, fact.trigger.kind, fact.trigger.sender) == ("done.invoke.payment", "message", child)
        assert fact.children_ended == ("payment",)


async def test_they_talk_in_order(world: World) -> None:
    async with world:
        await started(world)
        await world.engine.send("o", "tell")
        await world.settle()
        assert (await context(world))["heard"] == ["asked 5"]
        assert await status(world, "o") == ("active", ("shipped",))


async def test_a_delayed_event_finds_the_parent(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.send(child, "later")
        await world.settle()
        assert (await context(world))["heard"] == []
        await world.run(1)
        assert (await context(world))["heard"] == ["asked 1"]
        assert (await world.types(child))[-1] == "event_sent"


async def test_who_speaks_to_nobody_is_told(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.send(child, "lost")
        await world.settle()
        assert (await context(world, child))["tries"] == 1
        rows = {row.name: row for row in world.engine.recorder.select_effects(child)}
        assert (rows["gone"].state, rows["gone"].error) == ("failed", "no instance 'nobody'")


async def test_leaving_the_state_cancels_the_child(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.send("o", "skip")
        await world.settle()
        assert (await status(world, child))[0] == "cancelled"
        (fact,) = await world.until_recorded(child, "instance_cancelled")
        assert [effect.name for effect in fact.effects] == ["tidy"], "its exit actions have run"
        assert (await world.engine.send(child, "charged")).kind == "refused"
        assert await status(world, "o") == ("active", ("shipped",)), "and the parent hears no more of it"


async def test_entering_again_is_another_child(world: World) -> None:
    async with world:
        first = await started(world)
        await world.engine.send("o", "retry")
        await world.settle()
        second = (await world.engine.replay("o")).instance.children["payment"].instance_id
        assert (await status(world, first))[0] == "cancelled"
        assert (await status(world, second))[0] == "active"
        assert first != second


async def test_a_result_that_comes_too_late_is_discarded(world: World) -> None:
    async with world:
        child = await started(world)
        # Both at once: the child has ended by the time that the parent's order to end it arrives.
        done = world.engine.send(child, "charged")
        left = world.engine.send("o", "retry")
        await left
        await done
        await world.settle()
        late = await world.until_recorded("o", "event_discarded")
        assert [fact.trigger.name for fact in late] == ["done.invoke.payment"]
        assert late[0].reason == f"invoke 'payment' of instance '{child}' is no longer active"
        assert await status(world, "o") == ("active", ("paying",))


async def test_a_childs_failure_is_the_parents_event(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.send(child, "break")
        await world.run(60)
        assert (await status(world, child))[0] == "failed"
        assert await status(world, "o") == ("active", ("stuck",))
        assert (await context(world))["heard"] == ["error.effect.break: PermanentError: it broke"]


async def test_a_child_that_is_cancelled_from_outside_has_failed(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.cancel(child, reason="fraud")
        await world.settle()
        assert (await context(world))["heard"] == [f"instance '{child}' was cancelled: fraud"]


async def test_a_failure_that_nobody_handles_fails_the_parent(world: World) -> None:
    async with world:
        child = await started(world, "bare")
        await world.engine.send(child, "fail")
        await world.run(60)
        instance = (await world.engine.replay("o")).instance
        assert instance.status == "failed"
        assert instance.error == "error.invoke.w: error.effect.break: PermanentError: it broke"


async def test_a_cancelled_parent_takes_its_child_along(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.cancel("o")
        await world.settle()
        assert (await status(world, child))[0] == "cancelled"


async def test_a_parent_cancelled_at_once_leaves_no_child_behind(world: World) -> None:
    async with world:
        start = world.engine.start("order", {"amount": 5}, id="o")
        await start
        await world.engine.cancel("o")
        await world.settle()
        living = [row.id for row in await world.engine.list(InstanceFilter(status="active"))]
        assert living == []


async def test_a_paused_parent_hears_of_it_when_it_goes_on(world: World) -> None:
    async with world:
        child = await started(world)
        await world.engine.pause("o")
        await world.engine.send(child, "charged")
        await world.settle()
        assert await status(world, "o") == ("paused", ("paying",))
        await world.restart()
        await world.engine.resume("o")
        assert await status(world, "o") == ("active", ("shipped",))


@pytest.mark.parametrize("after", ["start", "charged"])
async def test_what_was_asked_for_survives_a_restart(world: World, after: str) -> None:
    await world.open(run_due=False)
    await world.engine.start("order", {"amount": 5}, id="o")
    if after == "charged":
        await world.restart()
        await world.settle()
        await world.restart(run_due=False)
        await world.engine.send("o-1-0", "charged")
    await world.restart()
    await world.settle()
    expected = "paying" if after == "start" else "shipped"
    assert await status(world, "o") == ("active", (expected,))
    assert (await world.types("o-1-0"))[:2] == ["instance_started", "transition_taken"][: 1 + (after == "charged")]
    await world.engine.close()
    world.verify()


async def test_a_child_that_cannot_start_is_a_failure(world: World) -> None:
    async with world:
        await world.engine.start("bare", {}, id="o-1-0")  # the id that the child would have
        await world.engine.start("order", {"amount": 5}, id="o")
        await world.settle()
        (heard,) = (await context(world))["heard"]
        assert heard.startswith("invoke 'payment' failed: instance 'o-1-0' exists")
        assert await status(world, "o") == ("active", ("stuck",))


async def test_a_chart_that_invokes_itself_without_end_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "self.yaml").write_text(
        "{name: self, initial: s, states: {s: {invoke: {id: again, src: self.yaml}, "
        "on: {error.invoke.again: {target: f}, done.invoke.again: f}}, f: {type: final}}}"
    )
    world = World(tmp_path / "store.db", load_chart(tmp_path / "self.yaml"))
    async with world:
        await world.engine.start("self", id="o")
        await world.settle()
        rows = await world.engine.list(InstanceFilter(limit=100))
        assert [row.status for row in rows] == ["completed"] * 33


async def test_a_src_without_a_suffix_is_a_definition(tmp_path: Path) -> None:
    worker = from_yaml("{name: worker, initial: w, states: {w: {on: {go: f}}, f: {type: final}}}")
    boss = from_yaml(
        "{name: boss, states: {s: {invoke: {id: w, src: worker}, on: {done.invoke.w: f}}, f: {type: final}}}"
    )
    world = World(tmp_path / "store.db", boss, worker)
    async with world:
        await world.engine.start("boss", id="o")
        await world.settle()
        await world.engine.send("o-1-0", "go")
        await world.settle()
        assert (await status(world, "o"))[0] == "completed"


async def test_a_changed_child_needs_a_new_version(world: World) -> None:
    async with world:
        pass
    other = from_yaml("{name: payment, initial: s, states: {s: {}}}")
    boss = Chart.from_tree(
        {"name": "boss", "states": {"s": {"invoke": {"chart": {"name": "payment", "states": {"s": {}}}}}}}
    )
    for chart in (other, boss):
        with pytest.raises(AlreadyExistsError, match="definition 'payment' version '1' is stored with digest"):
            await world.beside(chart).open()


async def test_children_are_rebuilt_from_the_log_alone(world: World) -> None:
    world.options = {"residents_max": 0}
    async with world:
        child = await started(world)
        await world.engine.send("o", "tell")
        await world.settle()
        for instance_id in ("o", child):
            facts = await world.facts(instance_id)
            assert fold(facts) == world.engine.log.load(instance_id)
        assert await status(world, "o") == ("active", ("shipped",))


@pytest.mark.parametrize(
    "tokens", [("tell",), ("retry", "tell"), ("skip", "close"), ("tell", "close"), ("retry", "skip")]
)
async def test_in_the_engine_as_in_the_simulation(world: World, tokens: tuple[str, ...]) -> None:
    simulation = Simulation(ORDER, {"amount": 5})
    simulation.begin()
    async with world:
        await started(world)
        for token in tokens:
            simulation.feed(parse_token(token))
            await world.engine.send("o", token)
            await world.settle()
        instance = (await world.engine.replay("o")).instance
        line = simulation.run()
        assert (list(instance.configuration), dict(instance.context), instance.status) == (
            list(line.configuration),
            dict(line.context),
            line.status,
        )


def test_a_childs_id_is_never_too_long() -> None:
    assert child_id("a-1-0") == "a-1-0"
    long = "a" * 128 + "-1-0"
    assert len(child_id(long)) == 128
    assert child_id(long) != child_id("a" * 128 + "-1-1")
