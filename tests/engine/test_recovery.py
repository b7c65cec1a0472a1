"""Recovery runs no user code: what is rebuilt is what was, whatever guards, actions and handlers do now."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statewright.engine import EffectCall
from statewright.engine.residents import load_resident
from statewright.statecharts import Chart, assign, chart, final, history, parallel, perform, send, state, to
from tests.engine.worlds import World, until

Function = Callable[..., Any]
NAMES = ("may_pass", "draw", "price", "count")


def genuine() -> dict[str, Function]:
    """Functions whose answers can't be had again: they draw lots and count their calls."""
    lots = random.Random(7)
    calls = {"count": 0}

    def may_pass(context: Mapping[str, Any], event: Any) -> bool:
        return lots.random() < 0.7

    def draw(context: Mapping[str, Any], event: Any) -> dict[str, Any]:
        return {"lot": lots.random()}

    def price(context: Mapping[str, Any], event: Any) -> dict[str, Any]:
        return {"cents": lots.randrange(1_000_000), "of": [lots.random(), None, "ä"]}

    def count(context: Mapping[str, Any], event: Any) -> int:
        calls["count"] += 1
        return calls["count"]

    return {function.__name__: function for function in (may_pass, draw, price, count)}


def replaced(behave: Function) -> tuple[dict[str, Function], list[str]]:
    """The same names, all doing `behave`; and the list of the calls that were made."""
    calls: list[str] = []

    def named(name: str) -> Function:
        def function(*args: Any) -> Any:
            calls.append(name)
            return behave()

        function.__name__ = name
        return function

    return {name: named(name) for name in NAMES}, calls


def lottery(functions: Mapping[str, Function]) -> Chart:
    """Guards, actions, data, timers, history and effects that all ask Python functions."""
    may_pass, draw, price, count = (functions[name] for name in NAMES)
    left = state(
        "left",
        initial="l1",
        states=[state("l1", on={"step": to("l2", guard=may_pass)}), state("l2", on={"step": "l1"}), history("l_then")],
    )
    right = state(
        "right",
        initial="r1",
        states=[
            state("r1", on={"step": to("r2", guard=may_pass, actions=[assign(draw)])}),
            state("r2", on={"step": "r1"}),
        ],
    )
    return chart(
        "lottery",
        context={
            "lot": {"type": "double", "default": 0.0},
            "offer": "dyn",
            "answers": {"type": "list(dyn)", "default": []},
        },
        initial="both",
        on={"done.effect.ask": to(actions=[assign(answers="context.answers + [event.data]")])},
        states=[
            parallel("both", states=[left, right], after={"60s": "resting"}, on={"rest": "resting", "stop": "over"}),
            state(
                "resting",
                entry=[assign(offer=price), perform("ask", data={"n": count})],
                exit=[send("late", delay="1h", data=price)],
                on={"back": to("l_then", guard=may_pass), "stop": "over"},
            ),
            final("over", output=price),
        ],
    )  # fmt: skip


async def live(world: World) -> list[str]:
    """Lives of instances that use all of it, some of them still going."""
    names = [f"l-{n}" for n in range(30)]
    for name in names:
        await world.engine.start("lottery", {"offer": {"first": name}}, id=name)
    lots = random.Random(11)
    for _ in range(25):
        for name in names:
            event = lots.choices(("step", "rest", "back", "stop", "nonsense"), weights=(10, 2, 4, 0.2, 1))[0]
            if event == "stop" and name in names[:2]:
                continue
            await world.engine.send(name, event, {"lot": lots.random()})
        world.clock.advance(lots.choice((1, 20, 61)))
    world.clock.advance(3_600)
    await world.engine.pause(names[0])
    await world.engine.send(names[0], "step")
    await world.engine.cancel(names[1])
    return names


def remembered(world: World, names: list[str]) -> dict[str, tuple[bytes, bytes]]:
    """What the engine holds in memory: of each instance, unless it was just dropped to be read again."""
    residents = {name: world.engine._running.residents.get(name) for name in names}
    return {
        name: (msgspec.json.encode(one.instance), msgspec.json.encode(one.snapshot))
        for name, one in residents.items()
        if one is not None
    }


def rebuilt(world: World, names: Iterable[str]) -> dict[str, tuple[bytes, bytes]]:
    """What loading makes of the log, and folding it from the first fact."""
    found = {}
    for name in names:
        resident = load_resident(world.engine.log, world.engine.definitions, name)
        assert resident is not None
        found[name] = (msgspec.json.encode(resident.instance), msgspec.json.encode(resident.snapshot))
    return found


def fail() -> Any:
    raise RuntimeError("user code was run")


@pytest.mark.parametrize("behave", [fail, random.random], ids=["raises", "random"])
async def test_instances_are_rebuilt_byte_for_byte_without_running_user_code(tmp_path: Path, behave: Function) -> None:
    world = World(tmp_path / "store.db", lottery(genuine()))
    async with world:
        performed: list[str] = []

        @world.engine.handler("ask")
        async def ask(call: EffectCall) -> float:
            performed.append(call.effect_id)
            return random.random()

        names = await live(world)
        await until(lambda: at_rest(world, names), "all that is due to be done")
        before = remembered(world, names)
        assert len(before) > len(names) - 3

        functions, calls = replaced(behave)
        world.charts = [lottery(functions)]
        world.handlers["ask"] = lambda call: calls.append("ask")
        await world.restart()

        assert remembered(world, names) == {}
        assert rebuilt(world, before) == before
        replayed = {name: msgspec.json.encode((await world.engine.replay(name)).instance) for name in before}
        assert replayed == {name: instance for name, (instance, _) in before.items()}
        assert calls == []
        assert len(performed) > 10
        kinds = {kind for name in names for kind in await world.types(name)}
        assert {"instance_cancelled", "event_deferred", "transition_taken", "event_refused", "event_discarded"} <= kinds


async def at_rest(world: World, names: list[str]) -> bool:
    """Nothing is left to do until the clock moves."""
    recorder = world.engine.recorder
    position = await world.engine.on_reader(recorder.max_notification_id)
    rows = [row for name in names for row in await world.engine.effects(name)]
    due = await world.engine.on_reader(recorder.due_timers, world.clock.now(), 1)
    quiet = not due and all(row.state in ("done", "cancelled") for row in rows)
    # What happened while the rows were read may have asked for more.
    return quiet and position == await world.engine.on_reader(recorder.max_notification_id)
