"""Sending events: recorded, refused with a reason, duplicates, and what is no event at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from statewright.engine import ExternalEvent, Outcome
from statewright.engine.errors import IdReusedError, InvalidError, NotFoundError, TooLargeError, UnavailableError
from tests.engine.worlds import World, type_of


async def test_an_event_is_recorded_with_who_sent_it_and_what_it_did(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")

        outcome = await world.engine.send(
            "d", "submit", {"by": "ann"}, event_id="e-1", source="web", actor="ann", time=1_600_000_000_000_000_000
        )

        fact = await world.last("d")
        assert outcome == Outcome("recorded", "", 2, ("review",), "active")
        assert (fact.trigger.name, fact.trigger.id, fact.trigger.source) == ("submit", "e-1", "web")
        assert (fact.trigger.actor, fact.trigger.data, fact.trigger.time) == (
            "ann",
            {"by": "ann"},
            1_600_000_000_000_000_000,
        )
        assert (fact.exited, fact.entered, fact.configuration) == (("draft",), ("review",), ("review",))
        assert [(verdict.guard, verdict.passed) for verdict in fact.guards] == [("context.amount > 0", True)]
        assert (await world.engine.status("d")).configuration == '["review"]'


async def test_an_event_that_no_state_handles_is_refused_and_that_is_recorded(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")

        outcome = await world.engine.send("d", "approve", event_id="e-1")

        fact = await world.last("d")
        assert (outcome.kind, outcome.sequence, outcome.configuration) == ("refused", 2, ("draft",))
        assert "'approve'" in outcome.reason
        assert "'draft'" in outcome.reason
        assert "'submit'" in outcome.reason
        assert (type_of(fact), fact.reason, fact.trigger.id) == ("event_refused", outcome.reason, "e-1")


async def test_a_guard_that_was_false_is_the_reason_of_the_refusal(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 0}, id="d")

        outcome = await world.engine.send("d", "submit")

        fact = await world.last("d")
        assert (outcome.kind, outcome.status) == ("refused", "active")
        assert outcome.reason == "guard 'context.amount > 0' of state 'draft' was false"
        assert [(verdict.guard, verdict.passed) for verdict in fact.guards] == [("context.amount > 0", False)]


async def test_an_action_that_fails_refuses_the_event_and_changes_nothing(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.send("c", "add", 1)

        outcome = await world.engine.send("c", "add", {"not": "a number"})

        row = await world.engine.status("c")
        assert outcome.kind == "refused"
        assert "assign 'total'" in outcome.reason
        assert (row.context, row.sequence) == ('{"total":1,"seen":[1]}', 3)


async def test_a_duplicate_answers_what_was_answered_first(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        refused = await world.engine.send("d", "approve", event_id="e-1")
        recorded = await world.engine.send("d", "submit", event_id="e-2")
        completed = await world.engine.send("d", "approve", event_id="e-3")
        too_late = await world.engine.send("d", "approve", event_id="e-4")
        firsts = {"e-1": refused, "e-2": recorded, "e-3": completed, "e-4": too_late}
        assert completed.status == "completed"

        for _ in range(2):
            for event_id, first in firsts.items():
                again = await world.engine.send("d", "submit" if event_id == "e-2" else "approve", event_id=event_id)
                assert again == Outcome("duplicate", first.reason, first.sequence, first.configuration, first.status), (
                    event_id
                )
            assert len(await world.facts("d")) == 5
            await world.restart()


async def test_a_duplicate_of_a_deferred_event_answers_as_it_was_then(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.pause("d")
        deferred = await world.engine.send("d", "submit", event_id="e-1")
        assert deferred == Outcome("recorded", "", 3, ("draft",), "paused")
        await world.engine.resume("d")

        again = await world.engine.send("d", "submit", event_id="e-1")

        assert again == Outcome("duplicate", "", 3, ("draft",), "paused")
        assert (await world.engine.status("d")).configuration == '["review"]'


async def test_the_same_id_of_another_source_or_instance_is_another_event(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.start("counter", id="d")

        kinds = [
            (await world.engine.send(instance_id, "add", 1, event_id="e", source=source)).kind
            for instance_id in ("c", "d")
            for source in ("", "a", "b")
        ]

        assert kinds == ["recorded"] * 6


@pytest.mark.parametrize("other", [{"name": "note"}, {"data": 2}, {"actor": "bob"}])
@pytest.mark.parametrize("restarted", [False, True])
async def test_an_id_used_again_for_other_content_is_an_error(
    world: World, other: dict[str, Any], restarted: bool
) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        first: dict[str, Any] = {"name": "add", "data": 1, "actor": "ann", "event_id": "e-1"}
        await world.engine.send("c", **first)
        if restarted:
            await world.restart()

        with pytest.raises(IdReusedError, match=r"event id 'e-1' .* instance 'c' at sequence 2 with other content"):
            await world.engine.send("c", **first | other)

        assert len(await world.facts("c")) == 2


async def test_the_order_of_keys_does_not_make_other_content(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.send("d", "submit", {"a": 1, "b": 2}, event_id="e-1")

        assert (await world.engine.send("d", "submit", {"b": 2, "a": 1}, event_id="e-1")).kind == "duplicate"


async def test_an_event_for_nobody_is_not_found(world: World) -> None:
    async with world:
        with pytest.raises(NotFoundError, match="no instance 'nobody'"):
            await world.engine.send("nobody", "submit")


async def test_after_the_end_events_are_refused_and_that_is_recorded(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.send("c", "stop")

        outcome = await world.engine.send("c", "add", 1)

        assert outcome == Outcome("refused", "instance 'c' is completed", 3, ("stopped",), "completed")
        assert await world.types("c") == ["instance_started", "transition_taken", "event_refused"]


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ({"data": {"x": object()}}, InvalidError, "expected the event's data to be JSON"),
        ({"data": "\ud800"}, InvalidError, "expected the event's data to be JSON"),
        ({"data": "x" * 10_485_760}, TooLargeError, "at most 1,048,576 bytes as JSON, got 10,485,762"),
        ({"name": ""}, InvalidError, "expected an event name of 1 to 256 characters, got none"),
        ({"name": "x" * 257}, InvalidError, "expected the event's name of at most 256 characters, got 257"),
        ({"name": 7}, InvalidError, "expected the event's name to be a text, got int"),
        ({"event_id": ""}, InvalidError, "expected an event id of 1 to 256 characters, got none"),
        ({"event_id": "x" * 1000}, InvalidError, "expected the event's id of at most 256 characters, got 1,000"),
        ({"source": "\udfff"}, InvalidError, "expected the event's source to be Unicode, got a lone surrogate at 0"),
        ({"name": "done.effect.notify"}, InvalidError, "got 'done.effect.notify', which only the engine itself brings"),
        ({"event_id": "e\0"}, InvalidError, "expected the event's id without NUL characters, got one at 1"),
        ({"actor": None}, InvalidError, "expected the event's actor to be a text, got NoneType"),
        ({"time": "now"}, InvalidError, "expected the event's time in whole nanoseconds, got 'now'"),
        ({"source": "statewright/effect"}, InvalidError, "expected another source than 'statewright/effect'"),
    ],
)
async def test_what_is_no_event_is_refused_and_leaves_no_trace(
    world: World, event: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with world:
        await world.engine.start("counter", id="c")

        bad = world.engine.send("c", **{"name": "add", "data": 1, **event})
        good = world.engine.send("c", "add", 1)
        failed, recorded = await asyncio.gather(bad, good, return_exceptions=True)

        assert isinstance(failed, error)
        with pytest.raises(error, match=message):
            raise failed
        assert isinstance(recorded, Outcome)
        assert (recorded.kind, recorded.sequence) == ("recorded", 2)


async def test_texts_in_any_script_are_kept(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.send("d", "submit")

        await world.engine.send("d", "note", {"text": "größer \0 👍"}, event_id="№ 1", actor="Ünal")

        fact = (await world.facts("d", after=2))[0]
        assert (fact.trigger.id, fact.trigger.actor, fact.trigger.data) == ("№ 1", "Ünal", {"text": "größer \0 👍"})
        assert (await world.engine.send("d", "note", {"text": "größer \0 👍"}, event_id="№ 1", actor="Ünal")).kind == (
            "duplicate"
        )


async def test_an_event_without_an_id_gets_one_and_is_no_duplicate(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")

        await world.engine.send("c", "add", 1)
        await world.engine.send("c", "add", 1)

        facts = await world.facts("c", after=1)
        assert len({fact.trigger.id for fact in facts}) == 2
        assert (await world.engine.status("c")).context == '{"total":2,"seen":[1,1]}'


async def test_a_caller_that_gave_up_waiting_changes_nothing_for_others(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")

        answers = [world.engine.submit(ExternalEvent("c", "add", n, f"e-{n}")) for n in range(3)]
        answers[1].cancel()

        assert (await answers[2]).sequence == 4
        assert (await world.engine.send("c", "add", 1, event_id="e-1")).kind == "duplicate"


async def test_the_times_of_facts_do_not_go_back_when_the_clock_does(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        before = world.clock.now()
        world.clock.advance(-60)

        await world.engine.send("c", "add", 1)

        assert [fact.time for fact in await world.facts("c")] == [before, before]


async def test_an_engine_that_is_not_open_says_so(world: World) -> None:
    async with world:
        pass
    with pytest.raises(UnavailableError, match="the engine is not open"):
        await world.engine.send("c", "add", 1)
    with pytest.raises(UnavailableError, match="the engine is not open"):
        world.engine.handler("work")


async def test_data_may_nest_64_deep_and_no_deeper(world: World) -> None:
    def nested(depth: int) -> object:
        value: object = 1
        for level in range(depth):
            value = [value] if level % 2 else {"in": value}
        return value

    async with world:
        await world.engine.start("counter", id="c")

        assert (await world.engine.send("c", "nothing", nested(64))).kind == "refused"
        with pytest.raises(InvalidError, match="nest at most 64 deep"):
            await world.engine.send("c", "nothing", nested(65))
        with pytest.raises(InvalidError):
            await world.engine.send("c", "nothing", nested(100_000))
        assert (await world.engine.send("c", "add", 1)).kind == "recorded"


async def test_a_timer_cannot_be_sent(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        await world.engine.send("d", "submit")
        reminder, _ = (await world.engine.replay("d")).instance.timers

        with pytest.raises(InvalidError, match="only a timer brings"):
            await world.engine.send("d", reminder)
