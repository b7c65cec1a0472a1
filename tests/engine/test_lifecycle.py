"""Pause, resume and cancel; completion and failure."""

from __future__ import annotations

import asyncio

import pytest

from statewright.engine import EffectCall, Outcome, PermanentError
from statewright.engine.errors import BusyError, InvalidError, NotFoundError
from statewright.engine.unit import DEFERRED_MAX
from tests.engine.worlds import World, type_of, until


async def test_events_wait_while_paused_and_apply_in_order_on_resume(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        paused = await world.engine.pause("c", reason="audit", actor="ann")
        for n in (3, 1, 2):
            assert (await world.engine.send("c", "add", n)).status == "paused"
        row = await world.engine.status("c")
        assert (paused.kind, row.status, row.context) == ("recorded", "paused", '{"total":0,"seen":[]}')

        resumed = await world.engine.resume("c")

        assert (resumed.sequence, resumed.status) == (6, "active")
        assert (await world.engine.status("c")).context == '{"total":6,"seen":[3,1,2]}'
        assert await world.types("c") == [
            "instance_started",
            "instance_paused",
            *["event_deferred"] * 3,
            "instance_resumed",
            *["transition_taken"] * 3,
        ]


async def test_what_waits_survives_a_restart_and_a_reload(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.pause("c")
        await world.engine.send("c", "add", 1, event_id="e-1")
        await world.restart()
        await world.engine.send("c", "add", 2)
        world.forget("c")
        assert (await world.engine.send("c", "add", 1, event_id="e-1")).kind == "duplicate"

        await world.engine.resume("c")

        assert (await world.engine.status("c")).context == '{"total":3,"seen":[1,2]}'


async def test_a_deferred_event_that_does_not_fit_is_refused_on_resume(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.pause("c")
        for name in ("nonsense", "stop", "add"):
            await world.engine.send("c", name, 1)

        await world.engine.resume("c")

        facts = (await world.facts("c"))[-3:]
        assert [type_of(fact) for fact in facts] == ["event_refused", "transition_taken", "event_refused"]
        assert facts[-1].reason == "instance 'c' is completed"
        assert (await world.engine.replay("c")).instance.deferred == ()


async def test_pausing_twice_and_resuming_what_runs_are_refused(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        assert await world.engine.resume("c") == Outcome(
            "refused", "instance 'c' is not paused, it is active", 1, ("counting",), "active"
        )
        await world.engine.pause("c")

        again = await world.engine.pause("c")

        assert again == Outcome("refused", "instance 'c' is paused already", 2, ("counting",), "paused")
        assert await world.types("c") == ["instance_started", "instance_paused"]


async def test_due_timers_wait_in_their_place_among_the_events(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set_many")
        await world.engine.pause("t")
        await world.engine.send("t", "ring.before")
        world.clock.advance(10)
        await world.until_recorded("t", "event_deferred", 4)
        await world.engine.send("t", "ring.after")
        assert (await world.engine.replay("t")).instance.timers == {}

        await world.engine.resume("t")

        rung = (await world.engine.replay("t")).instance.context["rung"]
        assert rung == ["ring.before", "ring.z", "ring.m", "ring.b", "ring.after"]


async def test_a_deferred_timer_that_an_earlier_event_cancels_never_fires(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "wait")
        await world.engine.pause("t")
        await world.engine.send("t", "leave")
        world.clock.advance(60)
        await world.until_recorded("t", "event_deferred", 2)

        await world.engine.resume("t")

        assert (await world.types("t"))[-2:] == ["instance_resumed", "transition_taken"]
        assert (await world.engine.status("t")).configuration == '["idle"]'


async def test_a_deferred_timer_that_an_earlier_event_sets_anew_fires_at_its_new_time(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "wait")
        await world.engine.pause("t")
        await world.engine.send("t", "again")
        world.clock.advance(61)
        await world.until_recorded("t", "event_deferred", 2)

        await world.engine.resume("t")
        assert (await world.engine.status("t")).configuration == '["waiting"]'
        world.clock.advance(60)
        await until(lambda: in_state(world, "t", "timed_out"), "the timer's new time")


async def in_state(world: World, instance_id: str, state: str) -> bool:
    return (await world.engine.status(instance_id)).configuration == f'["{state}"]'


async def test_cancel_ends_the_instance_and_drops_its_timers_and_effects(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.send("d", "submit")
        assert [row.state for row in await world.engine.effects("d")] == ["pending"]

        cancelled = await world.engine.cancel("d", reason="withdrawn", actor="ann")

        row, fact = await world.engine.status("d"), await world.last("d")
        assert (cancelled.kind, cancelled.status, row.status, row.failure) == (
            "recorded",
            "cancelled",
            "cancelled",
            "withdrawn",
        )
        assert (fact.reason, fact.actor, row.ended_at) == ("withdrawn", "ann", world.clock.now())
        assert await world.engine.on_reader(world.engine.recorder.select_timers, "d") == []
        assert [row.state for row in await world.engine.effects("d")] == ["cancelled"]
        assert (await world.engine.send("d", "approve")).reason == "instance 'd' is cancelled"
        assert (await world.engine.cancel("d")).reason == "instance 'd' is cancelled"


async def test_a_paused_instance_can_be_cancelled_and_what_waited_is_gone(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.pause("c")
        await world.engine.send("c", "add", 1, event_id="e-1")

        await world.engine.cancel("c")

        assert (await world.engine.replay("c")).instance.deferred == ()
        assert (await world.engine.send("c", "add", 1, event_id="e-1")).kind == "duplicate"
        assert (await world.engine.resume("c")).reason == "instance 'c' is cancelled"


async def test_a_result_that_comes_after_the_cancel_is_discarded(world: World) -> None:
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await world.engine.pause("e")

        async def work(call: EffectCall) -> str:
            await world.engine.cancel(call.instance_id)
            return "too late"

        world.engine.handler("work")(work)

        (discarded,) = await world.until_recorded("e", "event_discarded")
        assert (discarded.trigger.name, discarded.reason) == ("done.effect.work", "instance 'e' is cancelled")


async def test_completion_is_recorded_with_what_it_leaves(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.send("d", "submit")

        outcome = await world.engine.send("d", "approve")

        instance = (await world.engine.replay("d")).instance
        assert (outcome.status, outcome.configuration) == ("completed", ("approved",))
        assert (instance.status, instance.ended_at, instance.timers) == ("completed", world.clock.now(), {})


async def test_an_effect_that_fails_for_good_fails_an_instance_that_does_not_handle_it(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.send("d", "submit")

        @world.engine.handler("notify")
        async def notify(call: EffectCall) -> None:
            raise PermanentError("no such mailbox")

        (failed,) = await world.until_recorded("d", "instance_failed")
        row = await world.engine.status("d")
        assert failed.error == "error.effect.notify: PermanentError: no such mailbox"
        assert (row.status, row.failure, row.ended_at) == ("failed", failed.error, world.clock.now())
        assert [row.state for row in await world.engine.effects("d")] == ["failed"]
        assert (await world.engine.send("d", "approve")).reason == "instance 'd' is failed"


async def test_an_effect_that_fails_for_good_takes_the_transition_that_handles_it(world: World) -> None:
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)

        @world.engine.handler("work")
        async def work(call: EffectCall) -> None:
            raise PermanentError("broken machine")

        await until(lambda: in_state(world, "e", "broken"), "the transition on error.effect.work")
        instance = (await world.engine.replay("e")).instance
        assert (instance.status, instance.context["results"]) == ("active", ["PermanentError: broken machine"])


async def test_a_failure_on_resume_refuses_what_waited_behind_it(world: World) -> None:
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await world.engine.send("e", "handoff")
        await world.engine.pause("e")

        @world.engine.handler("work")
        async def work(call: EffectCall) -> None:
            raise PermanentError("broken machine")

        await world.until_recorded("e", "event_deferred")
        await world.engine.send("e", "back")

        resumed = await world.engine.resume("e")

        assert resumed.status == "failed"
        assert (await world.types("e"))[-3:] == ["instance_resumed", "instance_failed", "event_refused"]
        assert (await world.engine.replay("e")).instance.deferred == ()


@pytest.mark.sqlite  # Ten thousand events, none of which is the store's business.
async def test_a_paused_instance_keeps_a_bounded_number_of_events(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.pause("c")
        for start in range(0, DEFERRED_MAX, 1_000):
            await asyncio.gather(*(world.engine.send("c", "pass", n) for n in range(start, start + 1_000)))

        with pytest.raises(BusyError, match="instance 'c' is paused and keeps 10,000 events, no more"):
            await world.engine.send("c", "pass", 1)

        await world.engine.resume("c")
        refused = [fact.trigger.data for fact in await world.facts("c") if type_of(fact) == "event_refused"]
        assert refused == list(range(DEFERRED_MAX))


@pytest.mark.parametrize("action", ["pause", "resume", "cancel"])
async def test_nobody_can_be_paused_resumed_or_cancelled(world: World, action: str) -> None:
    async with world:
        with pytest.raises(NotFoundError, match="no instance 'nobody'"):
            await getattr(world.engine, action)("nobody")
        with pytest.raises(InvalidError, match="expected an instance id of the form"):
            await getattr(world.engine, action)("no.body")


async def test_a_reason_that_is_no_text_is_refused(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        with pytest.raises(InvalidError, match="expected the reason to be a text, got int"):
            await world.engine.pause("c", reason=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidError, match="expected the reason of at most 4,096 characters, got 5,000"):
            await world.engine.cancel("c", reason="x" * 5_000)
