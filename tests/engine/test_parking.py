"""What always fails is parked after a few attempts, out of the way of all else, and comes back when it is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import Engine
from statewright.engine.errors import InvalidError, NotFoundError, UnavailableError, UnusableError
from statewright.engine.parking import ATTEMPTS_MAX, is_fault, is_passing
from statewright.engine.recorder import ParkedRow
from statewright.engine.requests import ExternalEvent
from statewright.statecharts import Chart, chart, final, perform, state, to
from tests.engine.charts import from_yaml
from tests.engine.worlds import World, until


def allowed(context: Any, event: Any) -> bool:
    return True


def guarded() -> Chart:
    """A chart with a guard that only this process has."""
    return chart(
        "guarded",
        initial="waiting",
        states=[
            state("waiting", after={"10s": to("late", guard=allowed)}, on={"go": to("done"), "work": to("working")}),
            state("working", entry=[perform("work")], on={"done.effect.work": to("done")}),
            state("late"),
            final("done"),
        ],
    )


OTHER = chart("other", initial="on", states=[state("on", after={"10s": to("off")}), state("off")])


def unread(row: ParkedRow) -> ExternalEvent:
    raise InvalidError(f"nobody reads {row.subject}")


def moving(world: World, **steps: Any) -> Any:
    """A condition: something is parked; each time it is asked the clock goes on."""

    def is_parked() -> bool:
        world.clock.advance(31)
        return bool(world.engine.recorder.select_parked(10))

    return is_parked


async def parked_timer(world: World) -> ParkedRow:
    """That of instance "g-1", whose chart is not there when it is due."""
    await world.engine.start("guarded", id="g-1")
    world.charts = [OTHER]
    await world.restart()
    await until(moving(world), "a parked timer")
    (row,) = world.engine.recorder.select_parked(10)
    return row


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    return World(tmp_path / "store.db", guarded(), OTHER, url=store_url)


def test_what_is_whose_fault() -> None:
    assert is_passing(UnavailableError("the store is full"))
    assert not is_passing(UnusableError("a guard is gone"))
    assert not is_passing(KeyError("a bug"))
    assert is_fault(KeyError("a bug"))
    assert is_fault(UnusableError("a guard is gone"))
    assert not is_fault(UnavailableError("the store is full"))
    assert not is_fault(InvalidError("not understood"))


async def test_a_timer_whose_guard_is_gone_is_parked_and_others_fire(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world:
        await world.engine.start("guarded", id="g-1")
        await world.engine.start("other", id="o-1")
        world.charts = [OTHER]
        await world.restart()
        await until(moving(world), "a parked timer")
        (row,) = world.engine.recorder.select_parked(10)
        assert row.subject == "timer of g-1"
        assert "allowed" in row.reason
        assert sum("can't fire now" in record.message for record in caplog.records) == ATTEMPTS_MAX
        assert world.engine.recorder.select_timers("g-1") == []
        assert (await world.engine.status("o-1")).configuration == '["off"]'
        world.verify()

        # Retried too early it is parked again; with the guard back it fires.
        assert (await world.engine.retry_parked(row.parked_id, unread)).outcome is None
        await until(moving(world), "it to be parked again")
        world.charts = [guarded(), OTHER]
        await world.restart()
        await world.engine.retry_parked(row.parked_id, unread)
        await world.settle()
        assert (await world.engine.status("g-1")).configuration == '["late"]'
        assert world.engine.recorder.select_parked(10) == []
        with pytest.raises(NotFoundError, match="nothing is parked"):
            await world.engine.retry_parked(row.parked_id, unread)


async def test_a_dropped_timer_is_recorded_and_never_fires(world: World) -> None:
    async with world:
        row = await parked_timer(world)
        with pytest.raises(UnavailableError, match="allowed"):
            await world.engine.drop_parked(row.parked_id)  # Recording needs the definition.
        world.charts = [guarded(), OTHER]
        await world.restart()
        await world.engine.drop_parked(row.parked_id, reason="too late now")
        await world.settle()
        last = await world.last("g-1")
        assert (last.reason, last.trigger.kind) == ("dropped: too late now", "timer")
        assert (await world.engine.status("g-1")).configuration == '["waiting"]'
        assert world.engine.recorder.select_parked(10) == []


async def test_a_parked_timer_that_nobody_waits_for_any_more_does_not_come_back(world: World) -> None:
    async with world:
        row = await parked_timer(world)
        world.charts = [guarded(), OTHER]
        await world.restart()
        await world.engine.cancel("g-1")
        await world.engine.retry_parked(row.parked_id, unread)
        assert world.engine.recorder.select_parked(10) == []
        assert world.engine.recorder.select_timers("g-1") == []
        world.verify()


async def test_a_result_that_cannot_be_recorded_is_kept_and_not_performed_again(world: World) -> None:
    performed: list[str] = []

    async def work(call: Any) -> str:
        performed.append(call.effect_id)
        return "fine"

    async with world:
        await world.engine.start("guarded", id="g-1")
        await world.engine.send("g-1", "work")
        world.charts = [OTHER]
        world.handlers = {"work": work}
        await world.restart()
        await until(moving(world), "a parked result")
        rows = {row.subject: row for row in world.engine.recorder.select_parked(10)}
        row = rows["result of g-1"]
        with pytest.raises(UnusableError):
            await world.engine.retry_parked(row.parked_id, unread)
        world.verify()
        world.charts = [guarded(), OTHER]
        await world.restart()
        retried = await world.engine.retry_parked(row.parked_id, unread)
        assert retried.outcome is not None
        assert retried.outcome.configuration == ("done",)
        assert len(performed) == 1
        assert world.engine.recorder.find_parked(row.parked_id) is None


async def test_a_message_retried_twice_is_recorded_once(world: World) -> None:
    event = ExternalEvent("g-1", "go", None, "e-1")
    row = ParkedRow("p-1", 1, "statewright.events.g-1", "no instance", "{}", b"")

    async with world:
        world.engine.recorder.park(row)
        with pytest.raises(NotFoundError, match="g-1"):
            await world.engine.retry_parked("p-1", lambda _: event)
        assert world.engine.recorder.find_parked("p-1") == row
        await world.engine.start("guarded", id="g-1")
        both = await asyncio.gather(
            *(world.engine.retry_parked("p-1", lambda _: event) for _ in range(2)), return_exceptions=True
        )
        kinds = sorted(one.outcome.kind for one in both if not isinstance(one, BaseException) and one.outcome)
        assert kinds in (["duplicate", "recorded"], ["recorded"])
        assert await world.types("g-1") == ["instance_started", "transition_taken"]


async def test_a_reader_changes_nothing(world: World) -> None:
    async with world:
        world.engine.recorder.park(ParkedRow("p-1", 1, "x", "y", "{}", b""))
        async with Engine.open(world.url, read_only=True) as reader:
            assert [row.parked_id for row in await reader.parked(10)] == ["p-1"]
            with pytest.raises(UnavailableError, match="reading only"):
                await reader.drop_parked("p-1")


PARENT = from_yaml("""
name: parent
initial: asking
states:
  asking:
    invoke: {id: child, src: guarded}
    on: {done.invoke.child: heard, leave: gone}
  heard: {type: final}
  gone: {type: final}
""")


async def test_a_child_whose_definition_cannot_be_used_is_parked_until_it_can(world: World) -> None:
    """Its start is an effect; the parent goes on meanwhile."""
    world.charts = [guarded(), PARENT]
    async with world:
        await world.restart(run_due=False)
        await world.engine.start("parent", id="p")
        world.charts = [PARENT]
        await world.restart()
        await until(moving(world), "a parked start")
        (row,) = world.engine.recorder.select_parked(10)
        assert (row.subject, row.parked_id) == ("effect of p", "effect:p-1-0")
        assert [effect.state for effect in world.engine.recorder.select_effects("p")] == ["parked"]
        assert (await world.engine.status("p")).status == "active"
        world.verify()
        world.charts = [guarded(), PARENT]
        await world.restart()
        await world.engine.retry_parked(row.parked_id, unread)
        await until(lambda: world.engine.recorder.select_instance("p-1-0"), "the child")
        await world.engine.send("p-1-0", "go")
        await world.settle()
        assert (await world.engine.status("p")).configuration == '["heard"]'


async def test_a_dropped_start_is_not_performed(world: World) -> None:
    world.charts = [guarded(), PARENT]
    async with world:
        await world.restart(run_due=False)
        await world.engine.start("parent", id="p")
        world.charts = [PARENT]
        await world.restart()
        await until(moving(world), "a parked start")
        await world.engine.drop_parked("effect:p-1-0", reason="not needed")
        await world.engine.send("p", "leave")
        await world.settle()
        assert [effect.state for effect in world.engine.recorder.select_effects("p")] == ["dropped", "done"]
