"""Retries, timeouts, heartbeats and cancellation of effects, by the chart or else by the handler."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import EffectCall, EffectCancelled, Retry, RetryLater
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import InvalidError
from statewright.engine.events import InstanceFailed
from statewright.engine.recorder import EffectRow
from tests.engine.charts import from_yaml
from tests.engine.worlds import World, until

PAYING = from_yaml("""
name: paying
context:
  results: {type: list(dyn), default: []}
initial: ready
states:
  ready:
    on:
      retried: {target: paid, actions: [{perform: {name: pay, retry: {attempts: 3, initial: 10s, multiplier: 3,
                maximum: 20s, final: [ValueError]}, timeout: 2s}}]}
      plain: {target: paid, actions: [pay]}
      beating: {target: paid, actions: [{perform: {name: pay, heartbeat: 10s, timeout: 1h, retry: {attempts: 2}}}]}
      bind: bound
      both: two
      leave_word: {actions: [{perform: {name: pay, cancel: on_exit}}], target: bound}
      end: ended
  paid:
    on:
      done.effect.pay: {target: ready, actions: [{assign: {results: "context.results + [event.data]"}}]}
      error.effect.pay: {target: ready, actions: [{assign: {results: "context.results + [event.data.message]"}}]}
  bound:
    entry: [{perform: {name: pay, cancel: on_exit, retry: {attempts: 4, initial: 1s, maximum: 1s}}}]
    on:
      leave: ready
      again: bound
      stay: {actions: [{assign: {results: "context.results + ['stayed']"}}]}
      end: ended
      done.effect.pay: {target: ready, actions: [{assign: {results: "context.results + [event.data]"}}]}
      error.effect.other: ready
  two:
    type: parallel
    states:
      left: {entry: [{perform: {name: pay, cancel: on_exit}}], on: {done.effect.pay: {}}}
      right: {entry: [other]}
  ended: {type: final}
""")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store.db", PAYING)


async def effects(world: World) -> list[EffectRow]:
    return list(await world.engine.effects("e"))


async def until_effect(world: World, state: str, attempt: int, index: int = 0) -> EffectRow:
    async def reached() -> bool:
        rows = await effects(world)
        return len(rows) > index and (rows[index].state, rows[index].attempt) == (state, attempt)

    await until(reached, f"effect {index} to be {state} after attempt {attempt}")
    return (await effects(world))[index]


async def begin(world: World, event: str) -> None:
    await world.engine.start("paying", id="e")
    await world.engine.send("e", event)


async def results(world: World) -> list[Any]:
    return list((await world.engine.replay("e")).instance.context["results"])


def failing(error: Exception) -> Any:
    async def pay(call: EffectCall) -> None:
        raise error

    return pay


# -- retries -----------------------------------------------------------------------------------------------------------


async def test_a_charts_retry_goes_before_the_handlers(world: World) -> None:
    async with world:
        world.engine.handler("pay", retry=Retry(attempts=9, initial="1h", maximum="1h"))(failing(OSError("down")))
        await begin(world, "retried")

        for attempt, wait_s in ((1, 10), (2, 20)):  # 30 s would be the second; 20 s is the longest.
            row = await until_effect(world, "pending", attempt)
            assert row.due_at == world.clock.now() + wait_s * SECOND_NS
            world.clock.advance(wait_s)
        await until_effect(world, "failed", 3)
        assert await results(world) == ["OSError: down"]


async def test_where_the_chart_says_nothing_the_handlers_retry_holds(world: World) -> None:
    async with world:
        world.engine.handler("pay", retry=Retry(attempts=2, initial="7s"))(failing(OSError("down")))
        await begin(world, "plain")
        row = await until_effect(world, "pending", 1)
        assert row.due_at == world.clock.now() + 7 * SECOND_NS
        world.clock.advance(7)
        await until_effect(world, "failed", 2)


async def test_an_error_that_the_chart_names_is_final(world: World) -> None:
    async with world:
        world.engine.handler("pay")(failing(UnicodeError("a ValueError, too")))
        await begin(world, "retried")
        await until_effect(world, "failed", 1)
        assert await results(world) == ["UnicodeError: a ValueError, too"]


async def test_a_handler_may_say_when_to_try_again(world: World) -> None:
    async with world:
        world.engine.handler("pay")(failing(RetryLater(90, "the bank is closed")))
        await begin(world, "retried")
        row = await until_effect(world, "pending", 1)
        assert (row.due_at, row.error) == (world.clock.now() + 90 * SECOND_NS, "RetryLater: the bank is closed")
        for attempt in (2, 3):
            world.clock.advance(90)
            await until_effect(world, "pending" if attempt < 3 else "failed", attempt)


async def test_terms_that_make_no_sense_are_refused_where_the_handler_is_registered(world: World) -> None:
    async with world:
        with pytest.raises(InvalidError, match=r"handler 'pay': timeout: expected a duration .*, got 'soon'; retry.at"):
            world.engine.handler("pay", timeout="soon", retry=Retry(attempts=0))


async def test_the_policy_is_that_of_the_pinned_definition_also_after_a_crash_between_attempts(world: World) -> None:
    """The files are copied between two attempts: what a process that dies leaves behind. Another version runs on it."""
    attempts: list[int] = []

    async def pay(call: EffectCall) -> str:
        attempts.append(call.attempt)
        if call.attempt < 3:
            raise OSError("down")
        return "paid"

    other = from_yaml(
        "name: paying\nversion: 2\nstates: {only: {entry: [{perform: {name: pay, retry: {attempts: 1}}}]}}"
    )
    remains = World(world.path.with_name("remains.db"), PAYING, other)
    remains.handlers["pay"] = world.handlers["pay"] = pay
    async with world:
        await begin(world, "retried")
        await until_effect(world, "pending", 1)
        world.clock.advance(10)
        await until_effect(world, "pending", 2)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{world.path}{suffix}", f"{remains.path}{suffix}")

    remains.clock.advance(10)
    async with remains:
        row = await until_effect(remains, "pending", 2)
        assert row.due_at == remains.clock.now() + 20 * SECOND_NS
        remains.clock.advance(20)
        await until_effect(remains, "done", 3)
        assert attempts == [1, 2, 3]
        assert await results(remains) == ["paid"]


# -- timeouts ----------------------------------------------------------------------------------------------------------


async def test_an_attempt_whose_time_is_up_is_cancelled_and_tried_again(world: World) -> None:
    ends: list[str] = []
    async with world:

        @world.engine.handler("pay", timeout="1h")
        async def pay(call: EffectCall) -> str:
            assert call.deadline == world.clock.now() + 2 * SECOND_NS
            if call.attempt > 1:
                return "paid"
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("stopped")
            raise AssertionError

        await begin(world, "retried")
        await until(lambda: len(world.clock.waiting) > 1, "the attempt to be watched")
        world.clock.advance(2)
        row = await until_effect(world, "pending", 1)
        assert row.error == "TimeoutError: no result within 2s"
        assert ends == ["stopped"]
        world.clock.advance(10)
        await until_effect(world, "done", 2)


async def test_a_plain_function_whose_time_is_up_is_told_and_not_listened_to_any_more(world: World) -> None:
    calls: list[EffectCall] = []
    told: list[str] = []
    may_end = threading.Event()

    def pay(call: EffectCall) -> str:
        calls.append(call)
        if call.attempt == 1:
            may_end.wait()
            try:
                call.heartbeat()
            except EffectCancelled as error:
                told.append(str(error))
        return f"paid at attempt {call.attempt}"

    async with world:
        world.engine.handler("pay")(pay)
        await begin(world, "retried")
        await until(lambda: calls, "the handler to run")
        world.clock.advance(2)
        await until_effect(world, "pending", 1)
        assert calls[0].cancelled
        may_end.set()
        await until(lambda: told == ["no result within 2s"], "the handler to be told")
        world.clock.advance(10)
        await until_effect(world, "done", 2)
        assert await results(world) == ["paid at attempt 2"]


async def test_a_handler_that_is_cancelled_by_something_else_has_failed(world: World) -> None:
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> str:
            if call.attempt == 1:
                raise asyncio.CancelledError
            return "paid"

        await begin(world, "retried")
        row = await until_effect(world, "pending", 1)
        assert row.error == "RuntimeError: the handler was cancelled from within"
        world.clock.advance(10)
        await until_effect(world, "done", 2)


# -- heartbeats --------------------------------------------------------------------------------------------------------


async def test_a_heartbeat_keeps_an_attempt_alive_and_its_details_reach_the_next(world: World) -> None:
    beats: asyncio.Queue[int] = asyncio.Queue()
    calls: list[EffectCall] = []
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> str:
            calls.append(call)
            if call.attempt == 1:
                while True:
                    call.heartbeat({"page": await beats.get()})
            return f"from page {call.details['page']}"

        await begin(world, "beating")

        async def kept(details: str) -> bool:
            row = await until_effect(world, "running", 1)
            return row.details == details and row.due_at == world.clock.now() + 15 * SECOND_NS

        for page in (1, 2):
            beats.put_nowait(page)
            await until(lambda page=page: kept(f'{{"page":{page}}}'), "the heartbeat to be kept")
            world.clock.advance(9)
        assert len(calls) == 1

        world.clock.advance(1)
        row = await until_effect(world, "pending", 1)
        assert row.error == "TimeoutError: no heartbeat within 10s"
        world.clock.advance(1)
        await until_effect(world, "done", 2)
        assert (calls[0].details, calls[1].details) == (None, {"page": 2})
        assert await results(world) == ["from page 2"]


async def test_what_was_said_just_before_the_failure_reaches_the_next_attempt(world: World) -> None:
    async with world:

        @world.engine.handler("pay")
        def pay(call: EffectCall) -> Any:
            if call.attempt == 1:
                call.heartbeat([1, 2])
                call.heartbeat()
                raise OSError("down")
            return call.details

        await begin(world, "beating")
        await until_effect(world, "pending", 1)
        world.clock.advance(1)
        await until_effect(world, "done", 2)
        assert await results(world) == [[1, 2]]


async def test_a_lost_worker_is_noticed_by_its_silence(world: World) -> None:
    """The lease of an effect with a heartbeat ends soon after its last one: another worker may take it then."""
    entered = asyncio.Event()
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            entered.set()
            await asyncio.Event().wait()

        await begin(world, "beating")
        await entered.wait()
        claim = lambda now: world.engine.recorder.claim_effects(now, 1, names=["pay"], kinds=[], lease_ns=1)  # noqa: E731
        now = world.clock.now()
        assert await world.engine.on_writer(claim, now + 15 * SECOND_NS - 1) == []
        (taken,) = await world.engine.on_writer(claim, now + 15 * SECOND_NS)
        assert (taken.attempt, taken.lease_epoch) == (2, 2)


async def test_a_heartbeat_finds_out_that_somebody_else_performs_it_now(world: World) -> None:
    entered, beat, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            entered.set()
            await beat.wait()
            call.heartbeat()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        await begin(world, "beating")
        await entered.wait()
        later = world.clock.now() + 60 * SECOND_NS
        taken = await world.engine.on_writer(
            lambda: world.engine.recorder.claim_effects(later, 1, names=["pay"], kinds=[], lease_ns=600 * SECOND_NS)
        )
        assert [row.attempt for row in taken] == [2]
        beat.set()
        await ended.wait()
        assert await until_effect(world, "running", 2) == taken[0]


async def test_details_that_are_no_json_are_an_error_of_the_handler(world: World) -> None:
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            call.heartbeat(object())

        await begin(world, "beating")
        row = await until_effect(world, "failed", 1)
        assert "InvalidError: expected the details of a heartbeat to be JSON, got object" in row.error


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_leaving_the_state_cancels_the_effect_in_the_same_transaction(world: World) -> None:
    async with world:
        await begin(world, "bind")
        assert (await world.engine.replay("e")).instance.cancellable == {"e-2-0": "bound"}
        await world.engine.send("e", "stay")
        assert [row.state for row in await effects(world)] == ["pending"]

        await world.engine.send("e", "leave")

        assert [(row.state, row.error) for row in await effects(world)] == [("cancelled", "its state was left")]
        assert (await world.last("e")).effects_cancelled == ("e-2-0",)
        assert (await world.engine.replay("e")).instance.cancellable == {}


@pytest.mark.parametrize("forgotten", [False, True])
async def test_coming_back_cancels_the_old_one_and_asks_for_a_new_one(world: World, forgotten: bool) -> None:
    calls: list[str] = []
    async with world:
        await begin(world, "bind")
        if forgotten:
            world.forget("e")
        await world.engine.send("e", "again")
        assert [row.state for row in await effects(world)] == ["cancelled", "pending"]
        world.engine.handler("pay")(lambda call: calls.append(call.effect_id))
        await until_effect(world, "done", 1, 1)
        assert calls == ["e-3-0"]


async def test_asked_for_and_left_in_one_batch_it_is_not_performed(world: World) -> None:
    calls: list[str] = []
    async with world:
        world.engine.handler("pay")(lambda call: calls.append(call.effect_id))
        await world.engine.start("paying", id="e")
        await asyncio.gather(*(world.engine.send("e", name) for name in ("leave_word", "leave", "leave_word", "leave")))
        await world.settle()
        rows = await effects(world)
        assert [row.state for row in rows] == ["cancelled"] * 4
        assert calls == []


async def test_a_coroutine_under_way_is_cancelled_and_not_tried_again(world: World) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                assert call.cancelled
                ended.set()

        await begin(world, "bind")
        await entered.wait()
        await world.engine.send("e", "leave")
        await ended.wait()
        await world.settle()
        world.clock.advance(3600)
        await world.settle()
        assert [(row.state, row.attempt) for row in await effects(world)] == [("cancelled", 1)]
        assert (await world.types("e"))[-1] == "transition_taken"


async def test_the_late_result_of_a_plain_function_is_recorded_as_discarded(world: World) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def pay(call: EffectCall) -> str:
        entered.set()
        may_end.wait()
        return "paid all the same"

    async with world:
        world.engine.handler("pay")(pay)
        await begin(world, "bind")
        await until(entered.is_set, "the handler to run")
        await world.engine.send("e", "leave")
        assert (await effects(world))[0].state == "cancelled"
        may_end.set()
        (late,) = await world.until_recorded("e", "event_discarded")
        assert (late.trigger.data, late.reason) == (
            "paid all the same",
            "effect 'e-2-0' was cancelled: state 'bound' was left",
        )
        assert await results(world) == []


async def test_a_plain_function_that_stops_when_told_leaves_nothing_to_record(world: World) -> None:
    entered, left, ended = threading.Event(), threading.Event(), threading.Event()

    def pay(call: EffectCall) -> str:
        entered.set()
        left.wait()
        try:
            call.heartbeat()
        finally:
            ended.set()
        return "not reached"

    async with world:
        world.engine.handler("pay")(pay)
        await begin(world, "bind")
        await until(entered.is_set, "the handler to run")
        await world.engine.send("e", "leave")
        left.set()
        await until(ended.is_set, "the handler to end")
        before = await world.types("e")
        world.clock.advance(3600)
        await world.settle()
        assert await world.types("e") == before
        assert [(row.state, row.attempt) for row in await effects(world)] == [("cancelled", 1)]


async def test_a_late_failure_of_a_cancelled_effect_does_not_fail_the_instance(world: World) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def pay(call: EffectCall) -> None:
        entered.set()
        may_end.wait()
        raise OSError("down")

    async with world:
        world.engine.handler("pay", retry=Retry(attempts=1))(pay)
        await begin(world, "bind")
        await until(entered.is_set, "the handler to run")
        await world.engine.send("e", "leave")
        may_end.set()
        await world.engine.close()
        await world.open()
        assert (await world.engine.status("e")).status == "active"
        assert [row.state for row in await effects(world)] == ["cancelled"]


@pytest.mark.parametrize("end", ["complete", "cancel"])
async def test_the_end_of_the_instance_cancels_it(world: World, end: str) -> None:
    ended = asyncio.Event()
    entered = asyncio.Event()
    async with world:

        @world.engine.handler("pay")
        async def pay(call: EffectCall) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        await begin(world, "bind")
        await entered.wait()
        if end == "complete":
            assert (await world.engine.send("e", "end")).status == "completed"
        else:
            await world.engine.cancel("e")
        await ended.wait()
        assert [row.state for row in await effects(world)] == ["cancelled"]


async def test_the_failure_of_the_instance_cancels_it(world: World) -> None:
    async with world:
        world.engine.handler("other", retry=Retry(attempts=1))(failing(OSError("down")))
        await begin(world, "both")
        (failed,) = await world.until_recorded("e", "instance_failed")
        assert isinstance(failed, InstanceFailed)
        assert failed.effects_cancelled == ("e-2-0",)
        assert [row.state for row in await effects(world)] == ["cancelled", "failed"]


async def test_a_result_that_waits_for_the_resume_is_dropped_if_the_state_is_left_before(world: World) -> None:
    async with world:
        await begin(world, "bind")
        await world.engine.pause("e")
        await world.engine.send("e", "leave")
        world.engine.handler("pay")(lambda call: "paid")
        await world.until_recorded("e", "event_deferred", 2)
        await world.engine.resume("e")
        instance = (await world.engine.replay("e")).instance
        assert (instance.configuration, instance.deferred, instance.cancellable) == (("ready",), (), {})
        assert [row.state for row in await effects(world)] == ["done"]
        assert await results(world) == []


async def test_a_result_that_waits_for_the_resume_counts_if_the_state_is_not_left(world: World) -> None:
    async with world:
        await begin(world, "bind")
        await world.engine.pause("e")
        world.engine.handler("pay")(lambda call: "paid")
        await world.until_recorded("e", "event_deferred")
        await world.restart()
        await world.engine.resume("e")
        assert await results(world) == ["paid"]
        assert (await world.engine.replay("e")).instance.cancellable == {}


async def test_an_effect_that_is_not_bound_goes_on(world: World) -> None:
    async with world:
        await begin(world, "plain")
        await world.engine.send("e", "end")
        world.engine.handler("pay")(lambda call: "paid")
        await until_effect(world, "done", 1)
