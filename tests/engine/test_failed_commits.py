"""Commits that fail: only the guilty request does, nothing is answered on a guess, memory stays what the log says."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import msgspec
import pytest
from eventsourcing.persistence import IntegrityError, OperationalError

from statewright.engine import EffectCall, ExternalEvent, Outcome, Started
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import (
    AlreadyExistsError,
    ConflictError,
    IdReusedError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from statewright.engine.requests import ControlRequest, StartRequest
from statewright.engine.residents import load_resident
from statewright.engine.runtime import CONFLICTS_MAX
from tests.engine.charts import from_yaml
from tests.engine.faulty import Faults, faulty_store
from tests.engine.worlds import World, type_of, until

FULL = OperationalError("database or disk is full")


@pytest.fixture
def world(world: World) -> World:
    world.make_store = faulty_store
    return world


def recorder(world: World) -> Faults:
    found = world.engine.recorder
    assert isinstance(found, Faults)
    return found


def forbid(world: World, what: str) -> None:
    """Have the database itself refuse facts of which `what` (SQL) holds."""
    with closing(world.connect()) as connection:
        if isinstance(connection, sqlite3.Connection):
            refuse = "SELECT RAISE(ABORT, 'forbidden')"
            connection.execute(
                f"CREATE TRIGGER forbidden BEFORE INSERT ON stored_events WHEN {what} BEGIN {refuse}; END"
            )
        else:
            connection.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'forbidden' USING ERRCODE = 'check_violation'; END $$"
            )
            connection.execute(
                f"CREATE TRIGGER forbidden BEFORE INSERT ON stored_events FOR EACH ROW WHEN ({what})"
                " EXECUTE FUNCTION refuse()"
            )


def allow(world: World) -> None:
    with closing(world.connect()) as connection:
        is_file = isinstance(connection, sqlite3.Connection)
        connection.execute("DROP TRIGGER forbidden" if is_file else "DROP TRIGGER forbidden ON stored_events")


async def answers_of(world: World, *requests: Any) -> list[Any]:
    return await asyncio.gather(*map(world.engine.submit, requests), return_exceptions=True)


def memory_is_what_the_log_says(world: World, instance_ids: Iterable[str]) -> None:
    for instance_id in instance_ids:
        live = world.engine._running.residents.get(instance_id)
        loaded = load_resident(world.engine.log, world.engine.definitions, instance_id)
        if live is not None:
            assert loaded is not None
            assert msgspec.json.encode(live.instance) == msgspec.json.encode(loaded.instance)
            assert msgspec.json.encode(live.snapshot) == msgspec.json.encode(loaded.snapshot)
            rows = world.engine.recorder.select_inbox(instance_id, 10_000)
            stored = {(row.source, row.event_id): (row.sequence, row.digest) for row in rows}
            assert live.seen.items() <= stored.items()
            assert live.seen == stored or not live.complete


async def test_only_the_request_that_the_store_refuses_fails(world: World) -> None:
    async with world:
        names = [f"c-{n}" for n in range(20)]
        await asyncio.gather(*(world.engine.start("counter", id=name) for name in names))
        forbid(world, "NEW.originator_id = 'c-13'")

        answers = await answers_of(world, *(ExternalEvent(name, "add", n, "e") for n in (1, 2) for name in names))

        failed = [n for n, answer in enumerate(answers) if isinstance(answer, ConflictError)]
        assert failed == [13, 33]
        assert str(answers[13]) == "instance 'c-13' is being written by another process: forbidden"
        assert {answer.kind for answer in (*answers[:13], *answers[14:20])} == {"recorded"}
        assert {type(answer) for answer in (*answers[20:33], *answers[34:])} == {IdReusedError}
        memory_is_what_the_log_says(world, names)
        allow(world)
        assert (await world.engine.send("c-13", "add", 1, event_id="e")) == Outcome(
            "recorded", "", 2, ("counting",), "active"
        )


async def test_what_cannot_be_written_down_fails_alone(world: World) -> None:
    """A function of a chart makes a text that is no Unicode: nothing that comes with it suffers."""
    world.charts = [
        *world.charts,
        from_yaml(
            """
name: bad
context: {text: {type: string, default: ""}}
initial: here
states: {here: {on: {spoil: {actions: [{assign: {text: {function: spoilt}}}]}}}}
""",
            spoilt=lambda context, event: "\ud800",
        ),
    ]
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.start("bad", id="b")

        before, bad, after = await answers_of(
            world,
            ExternalEvent("c", "add", 1, "e-1"),
            ExternalEvent("b", "spoil", None, "e-1"),
            ExternalEvent("c", "add", 2, "e-2"),
        )

        assert (before.sequence, after.sequence) == (2, 3)
        assert isinstance(bad, InvalidError)
        assert "can't be recorded: UnicodeEncodeError" in str(bad)
        memory_is_what_the_log_says(world, ["b", "c"])


async def test_when_the_store_cannot_be_written_nothing_is_recorded_and_everything_still_works_afterwards(
    world: World,
) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        known = await world.engine.send("c", "add", 1, event_id="known")
        recorder(world).before.append(FULL)

        answers = await answers_of(
            world,
            ExternalEvent("c", "add", 2, "e-2"),
            ExternalEvent("c", "add", 2, "e-2"),
            ExternalEvent("c", "add", 1, "known"),
            ExternalEvent("c", "add", 9, "known"),
            ExternalEvent("nobody", "add", 1, "e"),
            ExternalEvent("c", "", 1, "e-3"),
            StartRequest("d", "counter", {}),
            StartRequest("c", "counter", {}),
            StartRequest("c", "timers", {}),
            ControlRequest("c", "pause"),
            ControlRequest("c", "resume"),
        )

        assert [type(answer) for answer in answers] == [
            UnavailableError,
            UnavailableError,
            Outcome,
            IdReusedError,
            NotFoundError,
            InvalidError,
            UnavailableError,
            Started,
            AlreadyExistsError,
            UnavailableError,
            Outcome,
        ]
        assert str(answers[0]) == "the store can't be written, nothing was recorded: database or disk is full"
        assert answers[2] == msgspec.structs.replace(known, kind="duplicate")
        assert answers[10].reason == "instance 'c' is not paused, it is active"
        memory_is_what_the_log_says(world, ["c", "d"])
        assert (await world.engine.send("c", "add", 2, event_id="e-2")).kind == "recorded"
        assert (await world.engine.start("counter", id="d")).sequence == 1
        assert await world.types("c") == ["instance_started", "transition_taken", "transition_taken"]


@pytest.mark.parametrize("passing", ["time", "success"])
async def test_a_commit_that_the_store_refused_counts_until_another_succeeds_or_for_a_while(
    world: World, passing: str
) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.touch()
        recorder(world).before.append(FULL)
        with pytest.raises(UnavailableError):
            await world.engine.send("c", "add", 1, event_id="e")

        with pytest.raises(UnavailableError, match="nothing was recorded: database or disk is full"):
            await world.engine.touch()

        if passing == "time":
            world.clock.advance(10)
        else:
            await world.engine.send("c", "add", 1, event_id="e")
        await world.engine.touch()


@pytest.mark.parametrize(
    "error", [OperationalError("disk I/O error"), RuntimeError("connection lost")], ids=["store", "other"]
)
async def test_a_commit_whose_answer_is_lost_counts_as_what_it_is(world: World, error: Exception) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        recorder(world).after.append(error)

        answers = await answers_of(
            world,
            ExternalEvent("t", "set", None, "e-1"),
            ControlRequest("t", "pause"),
            StartRequest("u", "counter", {}),
            ExternalEvent("u", "add", 1, "e-1"),
        )

        assert [(answer.sequence, answer.status) for answer in answers] == [
            (2, "active"),
            (3, "paused"),
            (1, "active"),
            (2, "active"),
        ]
        assert [answer.kind for answer in (answers[0], answers[1], answers[3])] == ["recorded"] * 3
        memory_is_what_the_log_says(world, ["t", "u"])
        await world.engine.resume("t")
        world.clock.advance(10)
        await world.until_recorded("t", "transition_taken", 2)


@pytest.mark.sqlite
async def test_facts_of_another_writer_are_read_before_deciding_again(world: World) -> None:
    """Somebody else got in between: the resident is stale, the commit conflicts, and is decided on what is so."""
    async with world:
        await world.engine.start("counter", id="c")
        other = World(world.path.with_name("other.db"), *world.charts)
        copied = sqlite3.connect(world.path)
        into = sqlite3.connect(other.path)
        copied.backup(into)
        copied.close()
        into.close()
        async with other:
            await other.engine.send("c", "add", 5, event_id="theirs")
        with sqlite3.connect(world.path) as connection:
            connection.execute(f"ATTACH '{other.path}' AS theirs")
            for table in ("stored_events", "inbox"):
                connection.execute(
                    f"INSERT INTO {table} SELECT * FROM theirs.{table} WHERE true ON CONFLICT DO NOTHING"
                )
            connection.execute("REPLACE INTO instances SELECT * FROM theirs.instances")
        connection.close()

        outcome, again = await answers_of(
            world, ExternalEvent("c", "add", 1, "ours"), ExternalEvent("c", "add", 5, "theirs")
        )

        assert (outcome.kind, outcome.sequence) == ("recorded", 3)
        assert (again.kind, again.sequence) == ("duplicate", 2)
        assert (await world.engine.status("c")).context == '{"total":6,"seen":[5,1]}'


async def test_a_conflict_that_does_not_end_is_given_up(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        recorder(world).before.extend([IntegrityError("taken")] * (CONFLICTS_MAX + 1))

        with pytest.raises(ConflictError, match="instance 'c' is being written by another process: taken"):
            await world.engine.send("c", "add", 1, event_id="e")

        assert (await world.engine.send("c", "add", 1, event_id="e")).kind == "recorded"


async def test_halving_keeps_the_order_of_events(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        recorder(world).before.extend([IntegrityError("once"), None, IntegrityError("again")])

        answers = await answers_of(world, *(ExternalEvent("c", "add", n, f"e-{n}") for n in range(16)))

        assert [answer.sequence for answer in answers] == list(range(2, 18))
        assert (await world.engine.replay("c")).instance.context["seen"] == list(range(16))
        assert [len(batch) for batch in recorder(world).batches] == [1, 16, 8, 8, 4, 4]


@pytest.mark.sqlite  # On a shared store nobody waits for that very time: all look now and then.
async def test_a_timer_that_could_not_be_recorded_fires_later_once(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set")
        recorder(world).before.append(FULL)
        world.clock.advance(10)
        await until_asleep(world, 30)
        assert await world.types("t") == ["instance_started", "transition_taken"]

        world.clock.advance(30)

        await world.until_recorded("t", "transition_taken", 2)
        assert (await world.engine.replay("t")).instance.context == {"rung": ["ring.a"]}


@pytest.mark.sqlite  # On a shared store nobody waits for that very time: all look now and then.
async def test_a_result_that_could_not_be_recorded_is_recorded_later_without_performing_again(world: World) -> None:
    calls: list[EffectCall] = []
    async with world:
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "go", 1)
        recorder(world).before.extend([FULL, FULL])

        @world.engine.handler("work")
        async def work(call: EffectCall) -> str:
            calls.append(call)
            return "done"

        for wait_s in (1, 2):
            await until_asleep(world, wait_s)
            world.clock.advance(wait_s)

        done = (await world.until_recorded("e", "transition_taken", 2))[-1]
        assert (done.trigger.name, len(calls)) == ("done.effect.work", 1)
        assert [row.state for row in await world.engine.effects("e")] == ["done"]


async def until_asleep(world: World, seconds: int) -> None:
    """Somebody waits for the clock to be this much later."""
    due_at = world.clock.now() + seconds * SECOND_NS
    await until(lambda: due_at in world.clock.waiting, f"somebody to wait {seconds} s")


async def test_a_fault_while_everybody_sends_loses_and_doubles_nothing(world: World) -> None:
    """Faults of every kind at every third commit; senders retry until they are answered."""
    async with world:
        names = [f"c-{n}" for n in range(10)]
        await asyncio.gather(*(world.engine.start("counter", id=name) for name in names))
        for n in range(60):
            fault = (FULL, IntegrityError("conflict"), RuntimeError("odd"))[n // 2 % 3] if n % 3 == 0 else None
            (recorder(world).before if n % 2 else recorder(world).after).append(fault)

        async def send(name: str, n: int) -> None:
            for _ in range(50):
                try:
                    await world.engine.send(name, "add", n, event_id=f"e-{n}")
                except UnavailableError:
                    continue
                return
            raise AssertionError(f"event {n} of {name} is not accepted")

        for n in range(40):
            await asyncio.gather(*(send(name, n) for name in names))

        for name in names:
            assert sorted((await world.engine.replay(name)).instance.context["seen"]) == list(range(40))
            facts = await world.facts(name)
            assert [fact.sequence for fact in facts] == list(range(1, 42))
            assert {type_of(fact) for fact in facts[1:]} == {"transition_taken"}
        memory_is_what_the_log_says(world, names)
