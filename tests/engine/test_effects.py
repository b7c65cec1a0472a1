"""Effects: after the commit, at least once, with results that count once."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from typing import Any

import pytest

from statewright.engine import EffectCall, PermanentError
from statewright.engine.clock import SECOND_NS
from statewright.engine.recorder import EffectRow
from statewright.engine.requests import PAYLOAD_BYTES_MAX, EffectResult
from statewright.engine.residents import SEEN_MAX
from statewright.engine.retries import DEFAULT
from statewright.engine.threads import THREADS_MAX
from tests.engine.worlds import World, type_of, until


async def effect(world: World, instance_id: str = "e", index: int = 0) -> EffectRow:
    return (await world.engine.effects(instance_id))[index]


async def until_effect(world: World, state: str, attempt: int, instance_id: str = "e") -> EffectRow:
    async def reached() -> bool:
        row = await effect(world, instance_id)
        return (row.state, row.attempt) == (state, attempt)

    await until(reached, f"the effect of '{instance_id}' to be {state} after attempt {attempt}")
    return await effect(world, instance_id)


async def results(world: World, instance_id: str = "e") -> list[Any]:
    return list((await world.engine.replay(instance_id)).instance.context["results"])


async def test_an_effect_is_performed_after_its_commit_and_its_result_comes_back_as_an_event(world: World) -> None:
    calls: list[EffectCall] = []
    async with world:
        reader = world.connect()

        @world.engine.handler("work")
        async def work(call: EffectCall) -> dict[str, str]:
            calls.append(call)
            recorded = reader.execute("SELECT max(originator_version) FROM stored_events").fetchone()[0]
            assert recorded == 2
            return {"made": "it"}

        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 7)

        done = (await world.until_recorded("e", "transition_taken", 2))[-1]
        assert calls == [EffectCall("e-2-0", "e", "work", "perform", {"n": 7}, 1)]
        assert (done.trigger.name, done.trigger.kind, done.trigger.id) == ("done.effect.work", "effect", "e-2-0-result")
        assert await results(world) == [{"made": "it"}]
        assert (await effect(world)).state == "done"
        reader.close()


async def test_a_plain_function_is_run_in_a_thread(world: World) -> None:
    threads: list[str] = []

    class Worker:
        async def __call__(self, call: EffectCall) -> str:
            return f"{call.name} by an object"

    def work(call: EffectCall) -> str:
        threads.append(threading.current_thread().name)
        return f"{call.name} by a function"

    async with world:
        world.engine.handler("work")(work)
        world.engine.handler("other")(Worker())
        await world.engine.start("effects", id="e")

        await world.engine.send("e", "both")

        await world.until_recorded("e", "transition_taken", 3)
        assert sorted(await results(world)) == ["other by an object", "work by a function"]
        assert threads != ["MainThread"]


async def test_a_failing_handler_is_tried_again_with_growing_waits_and_the_same_id(world: World) -> None:
    calls: list[EffectCall] = []
    async with world:

        @world.engine.handler("work")
        async def work(call: EffectCall) -> str:
            calls.append(call)
            if call.attempt < 4:
                raise ConnectionError("nobody there")
            return "at last"

        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)

        for attempt, wait_s in ((1, 1), (2, 2), (3, 4)):
            row = await until_effect(world, "pending", attempt)
            assert row.error == "ConnectionError: nobody there"
            assert row.due_at == world.clock.now() + wait_s * SECOND_NS
            world.clock.advance(wait_s)
        await until_effect(world, "done", 4)
        assert [(call.effect_id, call.attempt) for call in calls] == [("e-2-0", n) for n in (1, 2, 3, 4)]
        assert await results(world) == ["at last"]


async def test_after_the_last_attempt_the_effect_has_failed(world: World) -> None:
    async with world:

        @world.engine.handler("work")
        async def work(call: EffectCall) -> str:
            raise ConnectionError(f"attempt {call.attempt}")

        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)

        for attempt in range(1, DEFAULT.attempts):
            await until_effect(world, "pending", attempt)
            world.clock.advance(60)
        row = await until_effect(world, "failed", DEFAULT.attempts)
        assert row.error == "ConnectionError: attempt 5"
        assert await results(world) == ["ConnectionError: attempt 5"]


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (lambda call: [][1], "IndexError: list index out of range"),
        (lambda call: object(), "InvalidError: expected the result of handler 'work' to be JSON, got object"),
        (lambda call: "x" * PAYLOAD_BYTES_MAX, "TooLargeError: expected the result of handler 'work' of at most"),
    ],
)
async def test_what_trying_again_cannot_help_fails_at_once(world: World, handler: Any, error: str) -> None:
    def work(call: EffectCall) -> Any:
        try:
            return handler(call)
        except IndexError as fault:
            raise PermanentError(f"IndexError: {fault}") from fault

    async with world:
        world.engine.handler("work")(work)
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)

        row = await until_effect(world, "failed", 1)
        assert error in row.error


async def test_retries_go_on_after_a_restart_where_they_were(world: World) -> None:
    attempts: list[int] = []

    async def work(call: EffectCall) -> str:
        attempts.append(call.attempt)
        if call.attempt == 1:
            raise ConnectionError
        return "done"

    world.handlers["work"] = work
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await until_effect(world, "pending", 1)
        await world.restart()

        world.clock.advance(1)

        await until_effect(world, "done", 2)
        assert attempts == [1, 2]


async def test_an_effect_that_nobody_performs_waits_for_whoever_will(world: World) -> None:
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "both")
        world.engine.handler("other")(lambda call: "other")
        await world.until_recorded("e", "transition_taken", 2)
        assert [(row.name, row.state) for row in await world.engine.effects("e")] == [
            ("work", "pending"),
            ("other", "done"),
        ]
        await world.restart()

        world.engine.handler("work")(lambda call: "work")

        await until_effect(world, "done", 1)
        assert await results(world) == ["other", "work"]


async def test_emit_and_call_go_to_the_performer_of_their_kind(world: World) -> None:
    calls: list[EffectCall] = []

    def perform(call: EffectCall) -> str:
        calls.append(call)
        return call.kind

    from tests.engine.charts import from_yaml

    world.charts = [
        from_yaml("""
name: bus
initial: on
states:
  "on":
    entry: [{emit: {subject: orders.placed, data: {n: 1}}}, {call: {service: stock, method: reserve, data: 2}}]
""")
    ]
    async with world:
        await world.engine.start("bus", id="b")
        for kind in ("emit", "call"):
            world.engine.performer(kind, perform)

        await world.until_recorded("b", "event_discarded", 2)
        assert sorted((call.kind, call.name, str(call.data)) for call in calls) == [
            ("call", "stock.reserve", "2"),
            ("emit", "orders.placed", "{'n': 1}"),
        ]


@pytest.mark.sqlite
async def test_what_was_under_way_when_the_process_died_is_performed_again_with_the_same_id(world: World) -> None:
    """The files are copied while the handler runs: that is what a process that dies leaves behind."""
    performed: list[tuple[str, int]] = []
    entered, may_end = asyncio.Event(), asyncio.Event()
    remains = World(world.path.with_name("remains.db"), *world.charts)

    async def work(call: EffectCall) -> str:
        performed.append((call.effect_id, call.attempt))
        entered.set()
        await may_end.wait()
        return "done"

    async with world:
        world.engine.handler("work")(work)
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await entered.wait()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{world.path}{suffix}", f"{remains.path}{suffix}")
        may_end.set()
        await until_effect(world, "done", 1)

    remains.handlers["work"] = work
    async with remains:
        await until_effect(remains, "done", 2)
        assert performed == [("e-2-0", 1), ("e-2-0", 2)]
        assert await results(remains) == ["done"]


async def test_a_handler_that_the_closing_interrupts_is_performed_again(world: World) -> None:
    performed: list[int] = []
    entered = asyncio.Event()

    async def work(call: EffectCall) -> str:
        performed.append(call.attempt)
        entered.set()
        if call.attempt == 1:
            await asyncio.Event().wait()
        return "done"

    world.handlers["work"] = work
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await entered.wait()

        await world.restart()

        await until_effect(world, "done", 2)
        assert performed == [1, 2]


async def test_a_clock_that_leaps_within_the_timeout_leaves_a_handler_alone(world: World) -> None:
    calls: list[str] = []
    may_end = asyncio.Event()
    async with world:

        @world.engine.handler("work", timeout="48h")
        async def work(call: EffectCall) -> str:
            calls.append(call.effect_id)
            if call.instance_id == "e":
                await may_end.wait()
            return "done"

        for name in ("e", "f"):
            await world.engine.start("effects", id=name)
        await world.engine.send("e", "go", 1)
        await until(lambda: calls == ["e-2-0"], "the handler to run")

        world.clock.advance(86_400)
        await world.engine.send("f", "go", 1)
        await until_effect(world, "done", 1, "f")

        assert calls == ["e-2-0", "f-2-0"]
        may_end.set()
        await until_effect(world, "done", 1)


async def test_a_clock_that_leaps_past_timeout_and_lease_does_not_make_a_handler_run_twice_at_once(
    world: World,
) -> None:
    under_way: list[int] = []
    async with world:

        @world.engine.handler("work")
        async def work(call: EffectCall) -> str:
            under_way.append(call.attempt)
            assert len(under_way) == 1
            try:
                if call.attempt == 1:
                    await asyncio.Event().wait()
            finally:
                under_way.pop()
            return "done"

        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await until(lambda: under_way == [1], "the handler to run")

        world.clock.advance(86_400)

        async def is_put_off() -> bool:
            return (await effect(world)).state == "pending"

        await until(is_put_off, "the attempt to be given up")
        assert (await effect(world)).error == "TimeoutError: no result within 5m"
        world.clock.advance(60)
        await world.until_recorded("e", "transition_taken", 2)
        assert await results(world) == ["done"]


async def test_a_second_result_changes_nothing(world: World) -> None:
    async with world:
        world.engine.handler("work")(lambda call: "first")
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await until_effect(world, "done", 1)
        before = await world.facts("e")

        for restarted in (False, True):
            if restarted:
                await world.restart()
            answers = [
                world.engine._running.submit(EffectResult("e", "e-2-0", "work", result, error))
                for result, error in (("first", ""), ("second", ""), (None, "failed"))
            ]
            assert await asyncio.gather(*answers) == [None, None, None]

            assert await world.facts("e") == before

        await asyncio.gather(*(world.engine.send("e", "nonsense", n) for n in range(SEEN_MAX)))
        await world.restart()
        late = world.engine._running.submit(EffectResult("e", "e-2-0", "work", "long after"))
        assert await late is None
        assert (await effect(world)).state == "done"


async def test_results_that_come_after_the_end_are_discarded(world: World) -> None:
    async with world:
        await world.engine.start("effects", id="e")
        assert (await world.engine.send("e", "end")).status == "completed"

        world.engine.handler("work")(lambda call: "late")

        (discarded,) = await world.until_recorded("e", "event_discarded")
        assert discarded.reason == "instance 'e' is completed"
        assert (await effect(world)).state == "done"


async def test_a_result_for_a_paused_instance_waits_like_any_event(world: World) -> None:
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        await world.engine.pause("e")
        world.engine.handler("work")(lambda call: "done")
        await world.until_recorded("e", "event_deferred")
        assert (await effect(world)).state == "done"
        assert await results(world) == []

        await world.engine.resume("e")

        assert await results(world) == ["done"]


async def test_many_plain_functions_are_all_performed_once_and_not_all_at_once(world: World) -> None:
    under_way = peak = 0
    performed: list[str] = []
    lock = threading.Lock()
    async with world:

        @world.engine.handler("work")
        def work(call: EffectCall) -> int:
            nonlocal under_way, peak
            with lock:
                performed.append(call.effect_id)
                under_way += 1
                peak = max(peak, under_way, world.engine.performers.running)
            time.sleep(0)  # The others' turn.
            with lock:
                under_way -= 1
            return 1

        names = [f"e-{n}" for n in range(300)]
        await asyncio.gather(*(world.engine.start("effects", id=name) for name in names))
        await asyncio.gather(*(world.engine.send(name, "go", 1) for name in names))

        for name in names:
            await until_effect(world, "done", 1, name)
        assert sorted(performed) == sorted(f"{name}-2-0" for name in names)
        assert 1 < peak <= THREADS_MAX


async def test_an_effect_of_a_cancelled_instance_is_not_performed(world: World) -> None:
    performed: list[str] = []
    async with world:
        for name in ("e", "f"):
            await world.engine.start("effects", id=name)
            await world.engine.send(name, "go", 1)
        await world.engine.cancel("e")

        world.engine.handler("work")(lambda call: performed.append(call.effect_id))

        await until_effect(world, "done", 1, "f")
        assert performed == ["f-2-0"]
        assert [type_of(fact) for fact in await world.facts("e")][-1] == "instance_cancelled"


class _Mute(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError("/data/\udcff.txt"), "FileNotFoundError: /data/\\udcff.txt"),
        (ValueError("a\0b"), "ValueError: ab"),
        (ValueError("x" * PAYLOAD_BYTES_MAX), f"ValueError: {'x' * 10_000}... (1,048,576 characters)"),
        (_Mute(), "_Mute: (its message can't be had: its __str__ raised LookupError)"),
        (_Mute, "_Mute: (its message can't be had: its __str__ raised LookupError)"),
    ],
)
async def test_an_attempt_ends_whatever_its_error_says(world: World, error: Any, told: str) -> None:
    async with world:

        @world.engine.handler("work")
        async def work(call: EffectCall) -> None:
            raise error

        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 7)
        for attempt in range(1, DEFAULT.attempts):
            assert (await until_effect(world, "pending", attempt)).error == told
            world.clock.advance(60)
        assert (await until_effect(world, "failed", DEFAULT.attempts)).error == told
        assert await results(world) == [told]
