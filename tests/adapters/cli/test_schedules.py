"""Schedules on the command line, without a server and with one."""

from __future__ import annotations

import json

import pytest

from tests.adapters.cli.conftest import Cli
from tests.adapters.cli.test_serve import served

ADD = ("schedule", "add", "approval", "--cron", "0 9 * * MON", "--tz", "Europe/Zurich", "--context", '{"amount": 5}')


def test_add_list_pause_resume_remove(started: Cli) -> None:
    added = started(*ADD, "--id", "weekly", "--end", "2199-01-01T00:00:00Z", "--json")
    (row,) = added.lines
    assert (added.code, row["id"], row["tz"], row["context"], row["catch_up"], row["overlap"]) == (
        0,
        "weekly",
        "Europe/Zurich",
        {"amount": 5},
        "one",
        "allow",
    )
    assert started("schedule", "list", "--json").lines == [row]
    listed = started("schedule", "list").out
    assert "0 9 * * MON Europe/Zurich" in listed
    assert started("schedule", "pause", "weekly").out.rstrip().endswith("paused")
    assert started("schedule", "resume", "weekly", "--json").lines == [row]
    assert started("schedule", "remove", "weekly").out.rstrip().endswith("removed")
    assert started("schedule", "list").out == "no schedules\n"


def test_shared_options_may_stand_anywhere(started: Cli) -> None:
    store = ("--store", "sqlite:///statewright.db")
    for command in (
        (*store, "--json", *ADD),
        ("schedule", *store, "--json", *ADD[1:]),
        (*ADD, *store, "--json"),
        ("--json", "schedule", *store, *ADD[1:]),
    ):
        result = started(*command)
        assert (result.code, result.err) == (0, ""), command
        assert result.lines[0]["id"] == "approval"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--cron", "0 9 * * MOM"), 2, "day-of-week field, 'MOM'"),
        (("--cron", "0 0 30 2 *"), 2, "never does"),
        (("--tz", "Europe/Zurick"), 2, "did you mean 'Europe/Zurich'?"),
        (("--context", '{"amount": "much"}'), 2, "amount"),
        (("--context", "5"), 2, "--context"),
        (("--catch-up", "some"), 2, "--catch-up"),
        (("--end", "tomorrow"), 2, "--end"),
        (("--end", "2999-01-01T00:00:00Z"), 2, "before the year 2262"),
        (("--id", "a b"), 2, "a schedule id"),
        (("--id", "taken"), 1, "schedule 'taken' exists with another cron"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    started: Cli, arguments: tuple[str, ...], code: int, said: str
) -> None:
    started("schedule", "add", "approval", "--id", "taken", "--cron", "* * * * *", "--context", '{"amount": 5}')
    options = dict(zip(ADD[3::2], ADD[4::2], strict=True)) | dict(zip(arguments[::2], arguments[1::2], strict=True))
    result = started(*ADD[:3], *(word for pair in options.items() for word in pair))
    assert (result.code, result.out, result.err.count("\n")) == (code, "", 1)
    assert said in result.err
    assert len(started("schedule", "list", "--json").lines) == 1


def test_what_does_not_exist(started: Cli) -> None:
    for command in ("remove", "pause", "resume"):
        result = started("schedule", command, "nobody")
        assert (result.code, result.err) == (2, "statewright: no schedule 'nobody'\n")
    assert "no definition 'nothing'" in started("schedule", "add", "nothing", "--cron", "* * * * *").err
    assert "'frobnicate'" in started("schedule", "frobnicate").err


@pytest.mark.integration
def test_commands_go_through_the_owner(started: Cli) -> None:
    with served():
        row = json.loads(started(*ADD, "--json").out)
        assert started("schedule", "list", "--json").lines == [row]
        assert started("schedule", "pause", "approval", "--json").lines == [{**row, "status": "paused"}]
        assert started("schedule", "remove", "approval").code == 0
        assert started("schedule", "remove", "approval").code == 2
