"""When cron expressions are due: by the wall clock of a zone, over the days on which it is put forward and back."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statewright.engine.clock import SECOND_NS
from statewright.engine.cron import MINUTE_NS, Cron
from statewright.engine.errors import InvalidError

ZURICH = "Europe/Zurich"
HOUR_NS = 60 * MINUTE_NS


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def due(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The next due times, as a wall clock shows them, with its offset from UTC."""
    times = islice(Cron(expression, zone).times(at(after)), count)
    return [f"{datetime.fromtimestamp(time // SECOND_NS, ZoneInfo(zone)):%a %d %H:%M %z}" for time in times]


def test_it_is_due_by_the_clock_of_its_zone_summer_and_winter() -> None:
    expected = ["Mon 19 09:00 +0200", "Mon 26 09:00 +0100"]
    assert due("0 9 * * MON", ZURICH, "2026-10-18T00:00Z", 2) == expected
    assert due("0 9 * * MON", "UTC", "2026-10-19T09:00Z", 1) == ["Mon 26 09:00 +0000"]
    assert due("30 18 L * *", "Asia/Kolkata", "2026-02-01T00:00Z", 1) == ["Sat 28 18:30 +0530"]


def test_a_fixed_time_in_the_hour_left_out_is_due_right_after_it() -> None:
    expected = ["Sat 28 02:30 +0100", "Sun 29 03:00 +0200", "Mon 30 02:30 +0200"]
    assert due("30 2 * * *", ZURICH, "2026-03-27T12:00Z", 3) == expected


def test_a_fixed_time_in_the_hour_that_comes_twice_is_due_once() -> None:
    expected = ["Sun 25 02:30 +0200", "Mon 26 02:30 +0100"]
    assert due("30 2 * * *", ZURICH, "2026-10-24T12:00Z", 2) == expected
    assert due("30 2 * * *", ZURICH, "2026-10-25T01:10Z", 1) == expected[1:]  # 02:10, the second time


def test_a_star_goes_by_the_time_that_passes() -> None:
    forward = ["Sun 29 01:30 +0100", "Sun 29 03:00 +0200", "Sun 29 03:30 +0200"]
    assert due("*/30 * * * *", ZURICH, "2026-03-29T00:10Z", 3) == forward
    back = ["Sun 25 02:00 +0200", "Sun 25 02:30 +0200", "Sun 25 02:00 +0100", "Sun 25 02:30 +0100"]
    assert due("*/30 2 * * *", ZURICH, "2026-10-24T23:10Z", 4) == back


ZONES = (ZURICH, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC")
EXPRESSIONS = ("30 2 * * *", "0 2,3 * * *", "*/20 * * * *", "15 */2 * * *", "0 0 * * SUN", "0-59/20 1-3 * * *")
SPAN = (at("2026-03-01T00:00Z"), at("2026-11-30T00:00Z"))
ALL = {
    (zone, expression): list(takewhile(lambda time: time < SPAN[1], Cron(expression, zone).times(SPAN[0])))
    for zone in ZONES
    for expression in EXPRESSIONS
}


@given(st.sampled_from(sorted(ALL)), st.data())
def test_going_on_from_any_moment_gives_the_same_times(which: tuple[str, str], data: st.DataObject) -> None:
    times = ALL[which]
    moment = data.draw(st.sampled_from(times)) + data.draw(st.integers(-3 * HOUR_NS, 3 * HOUR_NS))
    assert sorted(set(times)) == times
    following = times[bisect_right(times, moment) :]
    if moment >= SPAN[0] and following:
        assert Cron(which[1], which[0]).after(moment) == following[0]


@given(st.sampled_from(sorted(ALL)), st.integers(1, 50), st.integers(0, 1_000))
def test_the_newest_of_many(which: tuple[str, str], count: int, missed: int) -> None:
    times = ALL[which][: missed + 1]
    for last in (times[-1], times[-1] + MINUTE_NS - 1):
        assert Cron(which[1], which[0]).newest(times[0], last, count) == times[-count:][0]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", "whose minute field, '61', is not valid"),
        ("0 9 * * MOM", "whose day-of-week field, 'MOM', is not valid"),
        ("0 9 32 * *", "whose day-of-month field, '32', is not valid"),
        ("* * * *", "five fields"),
        ("0 0 9 * * MON", "five fields such as .*, got 6 in"),
        ("@daily", "five fields"),
        ("", "five fields"),
        ("0 0 30 2 *", "never does: no such day"),
        ("0 0 31 4,6,9,11 *", "never does: no such day"),
        ("*" * 300, "got 300 characters"),
    ],
)
def test_a_wrong_expression_is_refused_and_told_where(expression: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        Cron(expression, "UTC")


@pytest.mark.parametrize("zone", ["Mars/Base", "", "Europe", "../../etc/passwd", "a\0b", "x" * 300])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(InvalidError, match="expected a time zone of the IANA database"):
        Cron("0 9 * * *", zone)


def test_a_zone_that_is_misspelt_is_guessed() -> None:
    with pytest.raises(InvalidError, match=r"did you mean 'Europe/Zurich'\?"):
        Cron("0 9 * * *", "Europe/Zurick")
