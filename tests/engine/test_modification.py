"""An instance is put elsewhere: into other states, on a derived definition, on again after its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statewright.adapters.cli.pruning import prune, restore
from statewright.adapters.memory.store import MemoryStore
from statewright.engine import EffectCall
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError
from statewright.engine.modification import modify
from statewright.engine.recorder import EndedFilter
from statewright.engine.residents import load_resident
from statewright.engine.verify import verify_log
from statewright.projections.metrics import Figures, Metrics
from statewright.statecharts import ContextError
from tests.engine.charts import from_yaml
from tests.engine.modified import DERIVED, LANES, moved
from tests.engine.worlds import World, until

HOUR = 3_600 * SECOND_NS


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    return World(tmp_path / "store.db", LANES, url=store_url)


async def states_of_effects(world: World) -> dict[str, str]:
    return {row.effect_id: row.state for row in await world.engine.effects("a")}


async def timers(world: World) -> dict[str, int]:
    rows = await world.engine.on_reader(world.engine.recorder.select_timers, "a")
    return {row.timer_id: row.due_at for row in rows}


async def live_is_replay(world: World) -> None:
    """Memory, the rows and what the facts fold to are one."""
    residents = world.engine._running.residents
    sequence = (await world.engine.status("a")).sequence
    # Memory advances a moment after the rows.
    await until(lambda: (one := residents.get("a")) is not None and one.instance.sequence >= sequence, "the resident")
    live = residents.get("a")
    loaded = load_resident(world.engine.log, world.engine.definitions, "a")
    assert live is not None
    assert loaded is not None
    assert msgspec.json.encode(live.instance) == msgspec.json.encode(loaded.instance)
    assert msgspec.json.encode(live.snapshot) == msgspec.json.encode(loaded.snapshot)
    assert live.machine is loaded.machine
    assert (await world.engine.replay("a")).instance == loaded.instance
    assert verify_log(world.engine.log).differences == []


async def test_what_is_kept_goes_on_and_what_is_left_is_cancelled(world: World) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        begun = world.clock.now()
        world.clock.advance(60)

        outcome = await moved(world, "l2", "r1", keep=("work", "left", "right", "r1"), reason="skip it", actor="ann")

        assert (outcome.kind, outcome.sequence, outcome.status) == ("recorded", 2, "active")
        assert outcome.configuration == ("work", "left", "l2", "right", "r1")
        assert await states_of_effects(world) == {"a-1-0": "cancelled", "a-1-1": "pending", "a-2-0": "pending"}
        now = world.clock.now()
        assert await timers(world) == {"after.work.0": begun + HOUR, "after.l2.0": now + HOUR // 6}
        fact = await world.last("a")
        assert (fact.exited, fact.entered, fact.reason, fact.actor) == (("l1",), ("l2",), "skip it", "ann")
        await live_is_replay(world)


async def test_nothing_kept_everything_begins_again(world: World) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        world.clock.advance(60)
        await moved(world, "work")
        assert await states_of_effects(world) == {
            "a-1-0": "cancelled",
            "a-1-1": "cancelled",
            "a-2-0": "pending",
            "a-2-1": "pending",
        }
        assert await timers(world) == {"after.work.0": world.clock.now() + HOUR}
        await live_is_replay(world)


async def test_the_kept_effect_is_performed_once_and_its_result_counts(world: World) -> None:
    calls: list[str] = []

    async def perform(call: EffectCall) -> str:
        calls.append(call.name)
        return call.name

    async with world:
        await world.engine.start("lanes", id="a")
        await moved(world, "l_end", "r1", keep=("work", "right", "r1"))
        world.engine.handler("r1")(perform)
        world.engine.handler("l1")(perform)
        await until_completed(world)
        assert calls == ["r1"]
        assert (await world.engine.replay("a")).instance.output == []
        await live_is_replay(world)


async def until_completed(world: World) -> None:
    async def over() -> bool:
        return (await world.engine.status("a")).status == "completed"

    await until(over, "the instance to complete")


async def test_placed_in_final_states_it_completes(world: World) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        outcome = await moved(world, "l_end", "r_end", context={"done": ["by hand"]})
        assert outcome.status == "completed"
        row = await world.engine.status("a")
        assert row.ended_at == world.clock.now()
        assert (await world.engine.replay("a")).instance.output == ["by hand"]
        assert set((await states_of_effects(world)).values()) == {"cancelled"}
        await live_is_replay(world)


@pytest.mark.parametrize("end", ["failed", "completed", "cancelled", "stopped"])
@pytest.mark.parametrize("forgotten", [False, True])
async def test_what_has_ended_goes_on(world: World, end: str, forgotten: bool) -> None:
    def perform(call: EffectCall) -> str:
        return call.effect_id

    def broken(call: EffectCall) -> str:
        raise InvalidError("broken")

    async with world:
        await world.engine.start("lanes", id="a")
        if end == "failed":
            world.engine.handler("l1")(broken)
        elif end == "completed":
            await moved(world, "l_end", "r_end")
        elif end == "cancelled":
            await world.engine.cancel("a", reason="no more")
        else:
            await world.engine.send("a", "stop")
        await until_ended(world)
        if forgotten:
            world.forget("a")
        before = await world.engine.status("a")
        assert before.ended_at is not None
        old = await states_of_effects(world)

        outcome = await moved(world, "l2", "r_end", reason="go on")

        assert (outcome.kind, outcome.status) == ("recorded", "active")
        row = await world.engine.status("a")
        assert (row.status, row.ended_at, row.failure) == ("active", None, "")
        assert row.started_at == before.started_at
        assert (await world.last("a")).exited == ()
        fresh = f"a-{row.sequence}-0"
        assert await states_of_effects(world) == old | {fresh: "pending"}
        await live_is_replay(world)
        world.engine.handler("l2")(perform)
        await until_completed(world)
        await live_is_replay(world)


async def until_ended(world: World) -> None:
    async def over() -> bool:
        return (await world.engine.status("a")).ended_at is not None

    await until(over, "the instance to end")


async def test_a_late_result_of_what_was_left_is_discarded(world: World) -> None:
    """Also when the same is asked for again, under the same name."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def shielded(call: EffectCall) -> str:
        begun.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        return call.effect_id

    async with world:
        await world.engine.start("lanes", id="a")
        world.engine.handler("l1")(shielded)
        await asyncio.wait_for(begun.wait(), 10)
        await moved(world, "l1", "r1")
        world.engine.handler("l1")(lambda call: call.effect_id)
        may_end.set()
        await world.until_recorded("a", "event_discarded")
        await until(lambda: is_in(world, "l2"), "the new one to count")
        results = [fact for fact in await world.facts("a") if getattr(fact, "trigger", None)]
        assert {fact.trigger.id: type(fact).__name__ for fact in results} == {
            "a-1-0-result": "EventDiscarded",
            "a-2-0-result": "TransitionTaken",
        }
        await live_is_replay(world)


async def is_in(world: World, state: str) -> bool:
    return state in (await world.engine.replay("a")).instance.configuration


async def test_a_derived_definition_is_stored_and_survives_the_restart(world: World) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        keep = ("work", "left", "right", "l1", "r1")
        outcome = await moved(world, "l1", "r1", chart=DERIVED, keep=keep, context={"done": ["x"]})
        assert outcome.kind == "recorded"
        row = await world.engine.status("a")
        assert (row.definition, row.version, row.digest) == ("lanes", "1+d3r1v3d0", DERIVED.digest)
        assert msgspec.json.decode(row.context) == {"done": ["x"], "fresh": 9}
        await live_is_replay(world)

        world.handlers = {"l1": lambda call: call.name}
        await world.restart()
        await until(lambda: is_in(world, "lx"), "the step that was put in")
        # Who starts the name gets the definition that everybody gets.
        await world.engine.start("lanes", id="b")
        assert (await world.engine.status("b")).version == "1"
        await live_is_replay(world)


async def test_a_derived_definition_is_never_the_newest(world: World, tmp_path: Path) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        await moved(world, "l1", "r1", chart=DERIVED, context={})
    bare = world.beside()
    async with bare:
        assert bare.engine.charts["lanes"].version == "1"
        await bare.engine.start("lanes", id="b")
        assert (await bare.engine.status("b")).version == "1"
        await bare.engine.start("lanes", id="c", version="1+d3r1v3d0")
        assert (await bare.engine.status("c")).version == "1+d3r1v3d0"


async def test_the_same_version_with_other_content_is_refused(world: World) -> None:
    other = from_yaml("name: lanes\nversion: 1+d3r1v3d0\ninitial: l1\nstates: {l1: {}}")
    async with world:
        await world.engine.start("lanes", id="a")
        await moved(world, "l1", "r1", chart=DERIVED, context={})
        with pytest.raises(AlreadyExistsError, match="1\\+d3r1v3d0"):
            await moved(world, "l1", chart=other)
        assert (await world.engine.status("a")).sequence == 2


async def test_a_paused_instance_stays_so_or_goes_on_with_what_was_deferred(world: World) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        await world.engine.pause("a")
        world.engine.handler("l1")(lambda call: "late")
        await world.until_recorded("a", "event_deferred")
        await world.engine.send("a", "note", event_id="n")

        outcome = await moved(world, "l2", "r1", keep=("work", "right", "r1"))
        assert (outcome.kind, outcome.status) == ("recorded", "paused")
        # The result belongs to a state that was left; the event is the instance's.
        deferred = (await world.engine.replay("a")).instance.deferred
        assert [trigger.id for trigger in deferred] == ["n"]
        await live_is_replay(world)

        outcome = await moved(world, "l2", "r1", keep=("work", "left", "right", "r1"), activate=True)
        assert outcome.status == "active"
        assert (await world.last("a")).trigger.id == "n"
        assert (await world.engine.replay("a")).instance.deferred == ()
        await live_is_replay(world)


@pytest.mark.parametrize(
    ("targets", "rest", "reason"),
    [
        (("l1",), {"expected_sequence": 7}, "expected instance 'a' to be at sequence 7, it is at 1"),
        (("nowhere",), {}, "chart 'lanes' has no state 'nowhere'"),
        ((), {}, "expected at least one state to be placed in, got none"),
        (("l1", "l2"), {}, "expected one active state in state 'left', got 'l1', 'l2'"),
        (("l1", "late"), {}, "expected one active state in the chart, got 'work', 'late'"),
        (("l2",), {"keep": ("l2",)}, "expected a state to be kept that instance 'a' is in, got 'l2'"),
        (("l2",), {"keep": ("work", "left", "l1")}, "expected a state to be kept that is among those to be active"),
    ],
)
async def test_what_can_not_be_is_refused_and_nothing_is_recorded(
    world: World, targets: tuple[str, ...], rest: dict[str, Any], reason: str
) -> None:
    async with world:
        await world.engine.start("lanes", id="a")
        outcome = await moved(world, *targets, **rest)
        assert (outcome.kind, outcome.sequence) == ("refused", 1)
        assert reason in outcome.reason
        assert await world.types("a") == ["instance_started"]


async def test_bad_input_gets_its_error(world: World) -> None:
    other = from_yaml("name: other\ninitial: one\nstates: {one: {}}")
    async with world:
        with pytest.raises(NotFoundError, match="no instance 'a'"):
            await modify(world.engine, "a", ["l1"], expected_sequence=1)
        await world.engine.start("lanes", id="a")
        with pytest.raises(ContextError, match="there is no field 'nonsense'"):
            await moved(world, "l1", context={"nonsense": 1})
        with pytest.raises(InvalidError, match="expected the reason to be a text"):
            await moved(world, "l1", reason=7)
        outcome = await moved(world, "one", chart=other)
        assert outcome.reason.startswith(
            "expected a definition of the name that instance 'a' runs, 'lanes', got 'other'"
        )
        assert await world.types("a") == ["instance_started"]


async def test_children_under_way_are_in_the_way(world: World) -> None:
    chart = from_yaml("""
        name: parent
        initial: waiting
        states:
          waiting: {invoke: {id: kid, chart: {name: kid, initial: up, states: {up: {}}}}}
          alone: {}
    """)
    world.charts = (chart,)
    async with world:
        await world.engine.start("parent", id="a")
        outcome = await moved(world, "alone")
        assert outcome.kind == "refused"
        assert outcome.reason.startswith("instance 'a' has children that are active: 'a-1-0'")


async def test_a_pruned_instance_is_gone_and_its_figures_stay_where_they_were(world: World, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive.jsonl.gz")
    async with world:
        await world.engine.start("lanes", id="a")
        await moved(world, "l1", "r1", chart=DERIVED, context={})
        await world.engine.cancel("a")
        before = await figures(world)
        assert before["1"].cancelled == 1
        where = EndedFilter(status="cancelled", ended_before=world.clock.now() + 1)
        assert (await prune(world.engine, world.engine.upkeep, [where], archive, world.url)).pruned == 1
        with pytest.raises(NotFoundError, match="pruned"):
            await modify(world.engine, "a", ["l1"], expected_sequence=3, chart=LANES)
        assert await figures(world) == before
        assert (await restore(world.engine, archive)).restored == 1
        assert (await moved(world, "l1", "r1")).status == "active"


async def figures(world: World) -> dict[str, Figures]:
    """Folded from zero, by version."""
    metrics = Metrics()
    metrics.apply_all(entry.fact for entry in world.engine.log.following(0, 1_000))
    return {version: one for (_, version), one in metrics.figures.items()}


@pytest.mark.sqlite
async def test_in_a_store_in_memory_it_is_the_same(world: World) -> None:
    store = MemoryStore()
    world.make_store = lambda url: store
    await world.open()
    try:
        await world.engine.start("lanes", id="a")
        await world.engine.cancel("a")
        assert (await moved(world, "l2", "r_end", chart=DERIVED, context={})).status == "active"
        await live_is_replay(world)
        row = await world.engine.status("a")
        assert (row.version, row.ended_at) == ("1+d3r1v3d0", None)
    finally:
        await world.engine.close()
