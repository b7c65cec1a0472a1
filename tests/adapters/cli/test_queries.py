"""What is read: the JSON shapes that programs rely on, and text that people can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli

COLUMNS = [
    "id",
    "definition",
    "version",
    "status",
    "configuration",
    "context",
    "sequence",
    "started_at",
    "updated_at",
    "ended_at",
]


@pytest.fixture
def approved(started: Cli) -> Cli:
    """Instance d-17: submitted, refused once, on to the second reviewer, approved."""
    started("send", "d-17", "submit", "--actor", "ann")
    assert started("send", "d-17", "submit").code == 1
    started("send", "d-17", "next")
    assert started("send", "d-17", "approve", "--data", '{"by": "bob"}').code == 0
    return started


def test_status_is_the_row_by_its_columns(approved: Cli) -> None:
    (line,) = approved("status", "d-17", "--json").lines
    assert list(line)[: len(COLUMNS)] == COLUMNS
    assert line["configuration"] == ["approved"]
    assert line["context"] == {"amount": 90, "reviewer": "bob"}
    assert (line["status"], line["sequence"]) == ("completed", 5)
    assert line["started_at"] < line["ended_at"]


def test_status_for_people(approved: Cli) -> None:
    text = approved("status", "d-17").out
    for part in ("d-17", "approval version 1", "completed", "approved", 'reviewer = "bob"', "Z)"):
        assert part in text


def test_list_filters_and_pages(approved: Cli) -> None:
    for number in (18, 19, 20):
        approved("start", "approval", "--id", f"d-{number}", "--context", '{"amount": 5}')
    approved("send", "d-19", "submit")

    def ids(*arguments: str) -> list[str]:
        return [line["id"] for line in approved("list", "--json", *arguments).lines]

    assert ids() == ["d-17", "d-18", "d-19", "d-20"]
    assert ids("--status", "active") == ["d-18", "d-19", "d-20"]
    assert ids("--state", "review") == ["d-19"]
    assert ids("--definition", "approval", "--limit", "2") == ["d-17", "d-18"]
    assert ids("--limit", "2", "--after", "d-18") == ["d-19", "d-20"]
    assert ids("--definition", "other") == []
    text = approved("list", "--limit", "2").out
    assert "there may be more: --after d-18" in text
    assert "no instances" in approved("list", "--state", "nowhere").out


def test_an_id_in_a_list_is_whole_in_any_terminal(approved: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made_up = approved("start", "approval", "--context", '{"amount": 5}', "--json").lines[0]["id"]
    approved("start", "approval", "--id", "x" * 100, "--context", '{"amount": 5}')
    text = approved("list").out
    assert f" {made_up} " in text
    assert text.count("x") == 100, "a longer one is folded"
    assert f"--after {'x' * 100}\n" in approved("list", "--limit", "3").out


def test_history_is_one_fact_a_line(approved: Cli) -> None:
    lines = approved("history", "d-17", "--json").lines
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["type"] for line in lines] == [
        "instance_started",
        "transition_taken",
        "event_refused",
        "transition_taken",
        "transition_taken",
    ]
    assert all({"sequence", "type", "time", "trigger", "from", "to"} <= line.keys() for line in lines)
    submitted = lines[1]
    assert (submitted["trigger"]["name"], submitted["trigger"]["actor"]) == ("submit", "ann")
    assert (submitted["from"], submitted["to"]) == (["draft"], ["review", "first"])
    assert [effect["name"] for effect in submitted["effects"]] == ["notify"]
    assert lines[2]["reason"].startswith("no transition for 'submit'")
    assert (lines[4]["guards"][0]["passed"], lines[4]["context"]) == (True, {"reviewer": "bob"})
    part = approved("history", "d-17", "--after", "1", "--limit", "2", "--json").lines
    assert part == lines[1:3]


def test_history_for_people(approved: Cli) -> None:
    text = approved("history", "d-17").out
    for part in (
        "draft → first",
        "ann",
        "submit refused",
        "no transition for 'submit'",
        "second → approved (completed)",
    ):
        assert part in text


def test_replay_is_the_instance_as_of_then(approved: Cli) -> None:
    (status,) = approved("status", "d-17", "--json").lines
    (now,) = approved("replay", "d-17", "--json").lines
    assert now == status | {"as_of": status["updated_at"]}
    (then,) = approved("replay", "d-17", "--to", "2", "--json").lines
    assert then.keys() == now.keys()
    assert (then["configuration"], then["sequence"], then["status"]) == (["review", "first"], 2, "active")
    assert (then["context"], then["ended_at"]) == ({"amount": 90, "reviewer": None}, None)
    (at,) = approved("replay", "d-17", "--at", str(then["updated_at"]), "--json").lines
    assert at == then


def test_replay_shows_how_it_got_there(approved: Cli) -> None:
    text = approved("replay", "d-17").out
    for part in (
        "started approval version 1",
        "context amount = 90",
        "submit by ann",
        "timer after.first.0 set, due in 1 d",
        "effect perform notify",
        "guard context.amount < 100 of review: true",
        'context reviewer: null → "bob"',
        "as of sequence 5",
    ):
        assert part in text
    assert "approve" not in approved("replay", "d-17", "--to", "2").out.replace("approved", "").replace("approval", "")


def test_metrics_are_one_line_a_definition(approved: Cli) -> None:
    approved("start", "approval", "--id", "d-18", "--context", '{"amount": 5}')
    (line,) = approved("metrics", "--json").lines
    assert (line["definition"], line["started"], line["active"], line["completed"]) == ("approval", 2, 1, 1)
    assert (line["refused"], line["failed"], line["cancelled"]) == (1, 0, 0)
    assert {name: state["now"] for name, state in line["states"].items()} == {
        "draft": 1,
        "review": 0,
        "first": 0,
        "second": 0,
        "approved": 0,
    }
    assert line["duration_ns"]["count"] == line["states"]["first"]["dwell_ns"]["count"] == 1
    assert line["states"]["draft"]["dwell_ns"]["p50"] > 0
    assert approved("metrics", "--definition", "other", "--json").out == ""


def test_rebuilt_metrics_are_the_same(approved: Cli) -> None:
    read = approved("metrics", "--json")
    assert approved("metrics", "--rebuild", "--json") == read
    assert approved("metrics", "--json") == read
    approved("start", "approval", "--id", "d-18", "--context", '{"amount": 5}')
    assert approved("metrics", "--json").lines[0]["started"] == 2, "figures that were stored are not stale"


def test_metrics_by_version(approved: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("version: '2'\n" + (tmp_path / "chart.yaml").read_text())
    approved("start", "approval", "--id", "d-18", "--context", '{"amount": 5}', "--chart", "two.yaml")
    lines = approved("metrics", "--by-version", "--json").lines
    assert [(line["version"], line["started"]) for line in lines] == [("1", 1), ("2", 1)]
    (line,) = approved("metrics", "--json").lines
    assert line["started"] == 2


def test_metrics_for_people(approved: Cli) -> None:
    text = approved("metrics").out
    for part in ("approval  1 started, 1 completed, 1 event refused", "p95", "second"):
        assert part in text


def test_what_came_from_outside_cannot_drive_the_terminal(started: Cli) -> None:
    started("send", "d-17", "\x1b[31mred[bold]", "--actor", "\x1b]0;title\x07")
    for command in ("history", "replay"):
        text = started(command, "d-17").out
        assert "\x1b" not in text
        assert "\\x1b[31mred[bold]" in text
