"""What the log says of a store that is away: once, once a minute, and when it is over; tracebacks of our faults."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError

from statewright.engine import ManualClock
from statewright.engine.outage import Outage
from tests.engine.worlds import World, until

AWAY = OperationalError("connection refused")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def outage(clock: ManualClock) -> Outage:
    return Outage("timers can't be read", clock)


def fail_for(outage: Outage, clock: ManualClock, seconds: int, error: Exception = AWAY) -> None:
    for _ in range(seconds):
        outage.failed(error)
        clock.advance(1)


def test_a_store_that_is_away_is_told_in_a_line_once_a_minute_and_at_the_end(
    outage: Outage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage.over()
    fail_for(outage, clock, 130)
    outage.over()
    outage.over()

    assert caplog.messages == [
        "timers can't be read; trying again: connection refused",
        "timers can't be read (for 60 s now); trying again: connection refused",
        "timers can't be read (for 120 s now); trying again: connection refused",
        "timers can't be read: over after 130 s (130 failures)",
    ]
    assert not any(record.exc_info for record in caplog.records)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "ERROR", "WARNING"]


def test_the_next_outage_is_told_at_once(outage: Outage, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    fail_for(outage, clock, 2)
    outage.over()
    caplog.clear()

    fail_for(outage, clock, 2)

    assert caplog.messages == ["timers can't be read; trying again: connection refused"]


def test_what_is_left_to_another_worker_is_not_said_to_be_over(
    outage: Outage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    fail_for(outage, clock, 2)

    outage.left()
    outage.over()

    assert caplog.messages[1:] == ["timers can't be read: left to whichever worker can go on, after 2 s (2 failures)"]


def test_another_failure_is_told_at_once_and_a_fault_of_ours_with_its_traceback(
    outage: Outage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    fail_for(outage, clock, 3)
    fail_for(outage, clock, 3, KeyError("partition"))

    assert caplog.messages[1:] == ["timers can't be read (for 3 s now); trying again: KeyError: 'partition'"]
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_what_another_worker_was_first_to_write_is_no_error(
    outage: Outage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    fail_for(outage, clock, 1, IntegrityError("expected position 3, but it is 7"))

    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_clock_that_is_set_back_silences_nothing(
    outage: Outage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    fail_for(outage, clock, 1)
    clock.advance(-3600)

    outage.failed(AWAY)

    assert len(caplog.messages) == 2


async def test_a_timer_table_that_cannot_be_read_is_told_once_and_its_timers_fire_afterwards(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def told(text: str) -> list[logging.LogRecord]:
        return [record for record in caplog.records if text in record.getMessage()]

    async with world:
        with closing(world.connect()) as connection:
            connection.execute("ALTER TABLE timers RENAME TO elsewhere")
        world.clock.advance(60)
        await until(lambda: bool(told("timers can't be read")), "the outage")
        for _ in range(5):
            await until(lambda: bool(world.clock.waiting), "a pause")
            world.clock.advance(1)
        with closing(world.connect()) as connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO timers")

        def over() -> bool:
            world.clock.advance(1)
            return bool(told("timers can't be read: over after"))

        await until(over, "the end of the outage")
        assert len(told("timers can't be read;")) == 1
        assert not any(record.exc_info for record in told("timers can't be read"))
