"""Words for people: durations, relative times, values."""

from __future__ import annotations

import pytest

from statewright.adapters.cli.options import options_last, parse_time
from statewright.adapters.cli.output import clean, duration, moment, relative, value
from statewright.adapters.cli.people import parents, place

MS, S, MIN, H, D = 10**6, 10**9, 60 * 10**9, 3600 * 10**9, 86_400 * 10**9


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "-"),
        (0, "0 ms"),
        (850 * MS, "850 ms"),
        (1_200 * MS, "1.2 s"),
        (42 * S, "42 s"),
        (200 * S, "3 min 20 s"),
        (2 * H, "2 h"),
        (2 * H + 5 * MIN + S, "2 h 5 min"),
        (3 * D + 4 * H, "3 d 4 h"),
        (400 * D, "400 d"),
    ],
)
def test_durations(ns: int | None, text: str) -> None:
    assert duration(ns) == text


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (0, "just now"),
        (-999 * MS, "just now"),
        (-S, "1 s ago"),
        (-3 * MIN - 59 * S, "3 min ago"),
        (2 * H, "in 2 h"),
        (90 * S, "in 1 min 30 s"),
        (3 * D - S, "in 2 d 23 h"),
        (-30 * D, "30 d ago"),
    ],
)
def test_relative_times(distance: int, text: str) -> None:
    now = 1_700_000_000 * S
    assert relative(now + distance, now) == text


@pytest.mark.parametrize(
    "text",
    ["1893456000000000000", "2030-01-01", "2030-01-01T00:00:00Z", "2030-01-01T01:00+01:00", "2030-01-01 00:00:00.000"],
)
def test_times_are_read_as_utc(text: str) -> None:
    assert parse_time("--at", text) == 1_893_456_000 * S
    assert moment(parse_time("--at", text)) == "2030-01-01 00:00:00.000Z"


def test_a_microsecond_is_not_lost() -> None:
    assert parse_time("--at", "2030-01-01T00:00:00.000001Z") == 1_893_456_000 * S + 1_000


def test_long_values_are_cut_and_control_characters_escaped() -> None:
    assert value({"a": ["é", None]}) == '{"a":["é",null]}'
    assert value("x" * 500).endswith("… (502 characters)")
    assert clean("a\x1b[0m\nb\u202e") == "a\\x1b[0m\\nb\\u202e"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["list"], ["list"]),
        (["--json", "list"], ["list", "--json"]),
        (["--store", "x", "--json", "send", "a", "--", "--b"], ["send", "--store", "x", "--json", "a", "--", "--b"]),
        (["--store=x", "list", "--limit", "1"], ["list", "--store=x", "--limit", "1"]),
        (["--help"], ["--help"]),
        (["--store", "x"], ["--store", "x"]),
        ([], []),
    ],
)
def test_shared_options_move_behind_the_command(given: list[str], expected: list[str]) -> None:
    assert options_last(given) == expected


def test_where_it_is_leaves_out_what_only_contains() -> None:
    inner = '{"id": "a", "states": [{"id": "b", "states": [{"id": "c"}]}, {"id": "d"}]}'
    definition = f'{{"name": "chart", "states": [{inner}, {{"id": "e"}}]}}'
    outer = parents(definition)
    assert outer == {"a", "b"}
    assert place(["a", "b", "c", "d"], outer) == "c, d"
    assert place([], outer) == "nowhere"
