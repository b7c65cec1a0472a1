"""Recurring starts: each due time starts one instance, whatever happens to the engine or the clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import OperationalError

from statewright.engine import Engine, InstanceFilter, ManualClock, ScheduleRow
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError, UnavailableError
from statewright.engine.schedules import CATCH_UP_MAX, SCHEDULE_ID_CHARS_MAX
from statewright.statecharts.errors import ContextError
from tests.engine.charts import APPROVAL, COUNTER, from_yaml
from tests.engine.worlds import World, until

MONDAY = "2026-01-05T09:00:00+01:00"
HOUR_S = 3_600
DAY_S = 24 * HOUR_S


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    world = World(tmp_path / "store.db", APPROVAL, COUNTER, url=store_url)
    world.clock = ManualClock(at("2026-01-01T00:00:00+00:00"))
    return world


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def go_to(world: World, text: str) -> None:
    world.clock.advance((at(text) - world.clock.now()) / SECOND_NS)


async def served(world: World) -> None:
    """Wait until no schedule is due any more."""

    async def none_is_due() -> bool:
        return not await world.engine.on_reader(world.engine.recorder.due_schedules, world.clock.now(), 1)

    await until(none_is_due, "the schedules to be served")


async def started(world: World) -> list[str]:
    return [row.id for row in await world.engine.list(InstanceFilter(limit=10_000))]


async def the_schedule(world: World) -> ScheduleRow:
    (row,) = await world.engine.schedules()
    return row


async def test_each_due_time_starts_an_instance_that_knows_its_schedule(world: World) -> None:
    async with world:
        row = await world.engine.schedule(
            "approval", "0 9 * * MON", {"amount": 5}, tz="Europe/Zurich", id="weekly", actor="ann"
        )
        assert (row.next_at, row.status, row.actor) == (at(MONDAY), "active", "ann")
        go_to(world, "2026-01-05T07:59:59+00:00")
        await served(world)
        assert await started(world) == []

        world.clock.advance(1)
        await served(world)

        assert await started(world) == ["weekly-20260105T080000Z"]
        (fact,) = await world.facts("weekly-20260105T080000Z")
        assert (fact.actor, fact.input, fact.time) == ("schedule:weekly", {"amount": 5}, at(MONDAY))
        row = await the_schedule(world)
        assert (row.last_at, row.next_at, row.note) == (at(MONDAY), at("2026-01-12T09:00:00+01:00"), "")
        for _ in range(2):
            world.clock.advance(7 * DAY_S)
            await served(world)
        assert len(await started(world)) == 3


async def test_a_schedule_outlives_the_engine_and_is_served_only_where_what_is_due_runs(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *")
        await world.restart(run_due=False)
        world.clock.advance(HOUR_S)
        await world.engine.start("counter", id="other")
        assert await started(world) == ["other"]
        await world.restart()
        await served(world)
        assert await started(world) == ["counter-20260101T010000Z", "other"]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("all", ["01", "02", "03", "04", "05"]), ("one", ["05"]), ("none", [])],
)
async def test_what_was_due_while_no_engine_ran(world: World, catch_up: Any, expected: list[str]) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s", catch_up=catch_up)
        await world.engine.close()
        world.clock.advance(5.5 * HOUR_S)
        await world.open()
        await served(world)
        assert await started(world) == [f"s-20260101T{hour}0000Z" for hour in expected]
        world.clock.advance(HOUR_S / 2)
        await served(world)
        assert (await started(world))[-1] == "s-20260101T060000Z"
        assert (await the_schedule(world)).next_at == at("2026-01-01T07:00:00+00:00")


async def test_with_none_a_start_less_than_a_minute_late_is_on_time(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s", catch_up="none")
        world.clock.advance(2 * HOUR_S + 60)
        await served(world)
        assert await started(world) == ["s-20260101T020000Z"]


async def test_catching_up_is_bounded_and_takes_the_newest(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "* * * * *", id="s", catch_up="all")
        await world.engine.close()
        world.clock.advance(600 * 60)
        await world.open()
        await served(world)
        found = await started(world)
        assert len(found) == CATCH_UP_MAX
        assert found[-1] == "s-20260101T100000Z"


async def test_a_running_instance_is_not_overlapped_with_skip(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s", overlap="skip")
        for _ in range(3):
            world.clock.advance(HOUR_S)
            await served(world)
        assert await started(world) == ["s-20260101T010000Z"]
        row = await the_schedule(world)
        assert row.note == "2026-01-01T03:00:00Z was skipped: 's-20260101T010000Z' is active"
        assert row.last_at == at("2026-01-01T01:00:00+00:00")
        await world.engine.send("s-20260101T010000Z", "stop")
        world.clock.advance(HOUR_S)
        await served(world)
        assert (await started(world))[1:] == ["s-20260101T040000Z"]
        assert (await the_schedule(world)).note == ""


@pytest.mark.parametrize("overlap", ["allow", "skip"])
@pytest.mark.parametrize("catch_up", ["all", "one", "none"])
async def test_a_crash_between_the_start_and_moving_on_starts_nothing_twice(
    world: World, overlap: Any, catch_up: Any
) -> None:
    """The row is put back to where it was before: as a crash right after the start's commit leaves it."""
    async with world:
        before = await world.engine.schedule("counter", "0 * * * *", id="s", overlap=overlap, catch_up=catch_up)
        world.clock.advance(HOUR_S)
        await served(world)
        after = await the_schedule(world)
        assert world.engine.recorder.replace_schedule(after, before)
        await world.restart()
        await served(world)
        assert await the_schedule(world) == after
        assert await started(world) == ["s-20260101T010000Z"]
        assert await world.types("s-20260101T010000Z") == ["instance_started"]


async def test_a_pause_makes_up_for_nothing(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s", catch_up="all")
        assert (await world.engine.pause_schedule("s")).status == "paused"
        assert (await world.engine.pause_schedule("s")).status == "paused"
        world.clock.advance(3.5 * HOUR_S)
        row = await world.engine.resume_schedule("s")
        assert (row.status, row.next_at) == ("active", at("2026-01-01T04:00:00+00:00"))
        world.clock.advance(HOUR_S / 2)
        await served(world)
        assert await started(world) == ["s-20260101T040000Z"]


async def test_a_schedule_ends(world: World) -> None:
    async with world:
        end_at = at("2026-01-01T02:00:00+00:00")
        await world.engine.schedule("counter", "0 * * * *", id="s", end_at=end_at, catch_up="all")
        world.clock.advance(9 * HOUR_S)
        await served(world)
        assert await started(world) == ["s-20260101T010000Z", "s-20260101T020000Z"]
        row = await the_schedule(world)
        assert (row.status, row.next_at) == ("ended", None)
        with pytest.raises(InvalidError, match="'s' has ended"):
            await world.engine.resume_schedule("s")


async def test_a_removed_schedule_starts_nothing_more_and_can_be_added_again(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s")
        world.clock.advance(HOUR_S)
        await served(world)
        assert (await world.engine.unschedule("s")).id == "s"
        assert await world.engine.schedules() == []
        world.clock.advance(HOUR_S)
        assert len(await started(world)) == 1
        await world.engine.schedule("counter", "30 * * * *", id="s")
        world.clock.advance(HOUR_S)
        await served(world)
        assert await started(world) == ["s-20260101T010000Z", "s-20260101T023000Z"]


async def test_adding_the_same_again_is_the_same_and_other_content_is_refused(world: World) -> None:
    async with world:
        first = await world.engine.schedule("counter", "0 * * * *")
        world.clock.advance(1)
        assert await world.engine.schedule("counter", " 0  * * * * ") == first
        with pytest.raises(AlreadyExistsError, match="schedule 'counter' exists with another cron, overlap"):
            await world.engine.schedule("counter", "5 * * * *", overlap="skip")
        assert await world.engine.schedules() == [first]


async def test_an_instance_of_somebody_else_in_the_way_is_passed_over_and_told(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 1}, id="s-20260101T010000Z")
        await world.engine.schedule("counter", "0 * * * *", id="s")
        world.clock.advance(HOUR_S)
        await served(world)
        row = await the_schedule(world)
        assert "'s-20260101T010000Z' exists" in row.note
        assert (row.last_at, row.next_at) == (None, at("2026-01-01T02:00:00+00:00"))


async def test_a_start_that_fails_is_told_and_made_up_for_once_it_can_be_made(world: World) -> None:
    """The newest version of the chart wants a field that the schedule does not give; then there is one that doesn't."""
    text = "name: report\nversion: '{}'\ncontext: {}\ninitial: a\nstates: {{a: {{}}}}\n"
    charts = [from_yaml(text.format(n, context)) for n, context in ((1, "{}"), (2, "{team: string}"), (3, "{}"))]
    async with world:
        world.charts = charts[:1]
        await world.restart()
        await world.engine.schedule("report", "0 * * * *", id="s")
        await world.engine.schedule("report", "10 * * * *", id="other", version="1")
        world.charts = charts[1:2]
        await world.restart()
        world.clock.advance(HOUR_S)

        async def is_noted() -> bool:
            return any("can't be started yet" in row.note for row in await world.engine.schedules())

        await until(is_noted, "the failure to be noted")
        assert await started(world) == ["other-20260101T001000Z"]
        world.charts = charts[2:]
        await world.restart()
        await served(world)
        assert await started(world) == ["other-20260101T001000Z", "s-20260101T010000Z"]
        assert {row.note for row in await world.engine.schedules()} == {""}


async def test_one_that_cannot_start_does_not_hold_up_the_others(world: World) -> None:
    text = "name: report\nversion: '{}'\ncontext: {}\ninitial: a\nstates: {{a: {{}}}}\n"
    async with world:
        world.charts = [COUNTER, from_yaml(text.format(1, "{}"))]
        await world.restart()
        await world.engine.schedule("report", "0 * * * *", id="broken")
        await world.engine.schedule("counter", "1 * * * *", id="fine")
        world.charts = [COUNTER, from_yaml(text.format(2, "{team: string}"))]
        await world.restart()
        world.clock.advance(HOUR_S + 59)

        async def waits() -> bool:
            rows = await world.engine.schedules()
            return bool(rows[0].note) and at("2026-01-01T01:01:00+00:00") in world.clock.waiting

        await until(waits, "the engine to wait for the one that is fine")
        world.clock.advance(1)

        async def has_started() -> bool:
            return await started(world) == ["fine-20260101T000100Z", "fine-20260101T010100Z"]

        await until(has_started, "the one that is fine to start")


async def test_a_clock_set_back_starts_nothing_twice(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s", catch_up="all")
        world.clock.advance(2 * HOUR_S)
        await served(world)
        world.clock.advance(-1.5 * HOUR_S)
        await world.restart()
        world.clock.advance(HOUR_S)
        await served(world)
        assert len(await started(world)) == 2
        world.clock.advance(1.5 * HOUR_S)
        await served(world)
        assert (await started(world))[2:] == ["s-20260101T030000Z"]


BAD: Sequence[tuple[dict[str, Any], type[Exception], str]] = (
    ({"definition": "nothing"}, NotFoundError, "no definition 'nothing'"),
    ({"version": "9"}, NotFoundError, "version '9'"),
    ({"cron": "0 9 * *"}, InvalidError, "five fields"),
    ({"cron": "0 9 31 11 *"}, InvalidError, "never does"),
    ({"tz": "Europe/Zuerich"}, InvalidError, "time zone"),
    ({"context": {}}, ContextError, "amount"),
    ({"context": {"amount": "much"}}, ContextError, "amount"),
    ({"context": [1]}, InvalidError, "the context"),
    ({"id": "a b"}, InvalidError, "a schedule id"),
    ({"id": "x" * (SCHEDULE_ID_CHARS_MAX + 1)}, InvalidError, f"at most {SCHEDULE_ID_CHARS_MAX}"),
    ({"catch_up": "some"}, InvalidError, "catch_up"),
    ({"overlap": "maybe"}, InvalidError, "overlap"),
    ({"end_at": 1}, InvalidError, "before its end"),
    ({"end_at": 1.5}, InvalidError, "whole nanoseconds"),
    ({"end_at": 2**63}, InvalidError, "before the year 2262"),
    ({"actor": "a\0b"}, InvalidError, "the actor"),
)


@pytest.mark.parametrize(("wrong", "error", "said"), BAD)
async def test_bad_input_is_refused_and_changes_nothing(
    world: World, wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    asked: dict[str, Any] = {"definition": "approval", "cron": "0 9 * * *", "context": {"amount": 5}, **wrong}
    async with world:
        with pytest.raises(error, match=said):
            await world.engine.schedule(**asked)
        assert await world.engine.schedules() == []
        assert await started(world) == []


async def test_unknown_schedules_and_engines_that_only_read(world: World) -> None:
    async with world:
        for command in (world.engine.unschedule, world.engine.pause_schedule, world.engine.resume_schedule):
            with pytest.raises(NotFoundError, match="no schedule 'nobody'"):
                await command("nobody")
        row = await world.engine.schedule("counter", "0 * * * *")
        async with Engine.open(world.url, read_only=True) as reader:
            assert await reader.schedules() == [row]
            with pytest.raises(UnavailableError, match="reading only"):
                await reader.unschedule("counter")


async def test_a_store_that_cannot_be_written_is_told_and_holds_the_start_up(world: World) -> None:
    async with world:
        await world.engine.schedule("counter", "0 * * * *", id="s")
        recorder: Any = world.engine.recorder
        failures = 0

        def failing(*_: Any, **__: Any) -> Any:
            nonlocal failures
            failures += 1
            raise OperationalError("database or disk is full")

        recorder.insert_events, recorder.replace_schedule = failing, failing
        with pytest.raises(UnavailableError, match="disk is full"):
            await world.engine.pause_schedule("s")
        world.clock.advance(HOUR_S)
        await until(lambda: failures >= 3, "the start to fail")
        del recorder.insert_events, recorder.replace_schedule
        await world.restart()
        await served(world)
        assert await started(world) == ["s-20260101T010000Z"]
