"""Retries, timeouts and heartbeats of effects, by the chart or else by the handler."""

from __future__ import annotations

import asyncio
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import EffectCall, EffectCancelled, Retry, RetryLater
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import InvalidError
from tests.engine.charts import from_yaml
from tests.engine.paying import PAYING, begin, failing, results, until_effect
from tests.engine.worlds import World, until


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    return World(tmp_path / "store.db", PAYING, url=store_url)


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


async def test_what_was_not_tried_is_put_off_without_counting(world: World) -> None:
    attempts: list[int] = []

    async def pay(call: EffectCall) -> None:
        attempts.append(call.attempt)
        if len(attempts) < 5:
            raise RetryLater(90, counted=False)

    async with world:
        world.engine.handler("pay", retry=Retry(attempts=1))(pay)
        await begin(world, "plain")
        for number in range(1, 5):
            await until(lambda number=number: len(attempts) == number, "the next attempt")
            await until_effect(world, "pending", 0)
            world.clock.advance(90)
        await until_effect(world, "done", 1)
        assert attempts == [1] * 5


@pytest.mark.parametrize(
    ("seconds", "error", "wait_s"),
    [
        (timedelta(seconds=90), "TypeError: expected RetryLater with seconds, a number, got timedelta", None),
        (float("nan"), "ValueError: expected RetryLater with seconds, a finite number, got nan", None),
        (1e300, "RetryLater: again in 1e+300 s", 366 * 86_400),
        (-1, "RetryLater: again in -1 s", 0),
    ],
)
async def test_an_attempt_ends_whatever_wait_its_handler_asks_for(
    world: World, seconds: Any, error: str, wait_s: int | None
) -> None:
    tries = 0

    async def pay(call: EffectCall) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RetryLater(seconds)

    async with world:
        world.engine.handler("pay")(pay)
        await begin(world, "plain")
        if wait_s != 0:
            row = await until_effect(world, "pending", 1)
            assert row.error == error
            assert wait_s is None or row.due_at == world.clock.now() + wait_s * SECOND_NS
            world.clock.advance(wait_s or 10)
        await until_effect(world, "done", 2)


async def test_terms_that_make_no_sense_are_refused_where_the_handler_is_registered(world: World) -> None:
    async with world:
        with pytest.raises(InvalidError, match=r"handler 'pay': timeout: expected a duration .*, got 'soon'; retry.at"):
            world.engine.handler("pay", timeout="soon", retry=Retry(attempts=0))


@pytest.mark.sqlite
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
        deadline = world.clock.now() + 2 * SECOND_NS
        await until(lambda: deadline in world.clock.waiting, "the attempt to be watched")
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
