"""Commands without a server: each owns the store, records, and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.engine.stores import open_store
from tests.adapters.cli.conftest import Cli


def test_start_prints_the_new_instance(cli: Cli) -> None:
    result = cli("start", "approval", "--context", '{"amount": 5}', "--chart", "chart.yaml", "--json")
    assert result.code == 0
    (line,) = result.lines
    assert line == {"id": line["id"], "sequence": 1, "configuration": ["draft"], "status": "active"}
    assert cli("status", line["id"]).code == 0


def test_a_definition_once_stored_needs_no_chart(started: Cli) -> None:
    assert started("start", "approval", "--id", "d-18", "--context", '{"amount": 5}').code == 0


def test_starting_again_is_the_same_start_or_refused(started: Cli) -> None:
    same = started("start", "approval", "--id", "d-17", "--context", '{"amount": 90}', "--json")
    assert (same.code, same.lines[0]["sequence"]) == (0, 1)
    other = started("start", "approval", "--id", "d-17", "--context", '{"amount": 91}')
    assert (other.code, other.out) == (1, "")
    assert "d-17" in other.err


def test_send_prints_the_outcome(started: Cli) -> None:
    result = started("send", "d-17", "submit", "--event-id", "e-1", "--actor", "ann", "--json")
    expected = {
        "kind": "recorded",
        "reason": "",
        "sequence": 2,
        "configuration": ["review", "first"],
        "status": "active",
    }
    assert (result.code, result.lines) == (0, [expected])
    again = started("send", "d-17", "submit", "--event-id", "e-1", "--actor", "ann", "--json")
    assert (again.code, again.lines) == (0, [expected | {"kind": "duplicate"}])


def test_a_refused_event_exits_1_and_says_why(started: Cli) -> None:
    result = started("send", "d-17", "approve", "--json")
    assert (result.code, result.lines[0]["kind"], result.err) == (1, "refused", "")
    assert "accepts 'submit'" in result.lines[0]["reason"]
    again = started("send", "d-17", "approve")
    assert again.code == 1
    assert again.out.startswith("refused at sequence 3: no transition for 'approve'")


def test_a_reused_event_id_exits_1(started: Cli) -> None:
    assert started("send", "d-17", "submit", "--event-id", "e-1").code == 0
    result = started("send", "d-17", "next", "--event-id", "e-1")
    assert (result.code, result.out) == (1, "")
    assert "e-1" in result.err


def test_pause_resume_cancel(started: Cli) -> None:
    assert started("pause", "d-17", "--reason", "audit", "--json").lines[0]["status"] == "paused"
    assert started("send", "d-17", "submit", "--json").lines[0]["configuration"] == ["draft"]
    assert started("pause", "d-17").code == 1
    assert started("resume", "d-17", "--json").lines[0]["status"] == "active"
    assert started("status", "d-17", "--json").lines[0]["configuration"] == ["review", "first"]
    assert started("cancel", "d-17", "--reason", "budget", "--actor", "ann", "--json").lines[0]["status"] == "cancelled"
    again = started("cancel", "d-17", "--json")
    assert (again.code, again.lines[0]["reason"]) == (1, "instance 'd-17' is cancelled")


def test_effects_and_timers_are_left_to_the_next_owner(started: Cli) -> None:
    started("send", "d-17", "submit")
    status = started("status", "d-17").out
    assert "notify pending" in status
    assert "in 23 h" in status or "in 1 d" in status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send", "d-17", "submit", "--data", '{"a": }'], "expected --data to be JSON, got '{\"a\": }'"),
        (["send", "d-17", "submit", "--data", '{"a": }'], "(byte 6)"),
        (["start", "approval", "--context", "[1]"], "expected --context to be a JSON object, got '[1]'"),
        (["start", "approval", "--context", "null"], "expected --context to be a JSON object"),
        (["start", "approval", "--context", '{"amount": "x"}'], "amount"),
        (["start", "approval"], "amount"),
        (["start", "nothing"], "nothing"),
        (["start", "a b"], "a b"),
        (["start", "approval", "--chart", "missing.yaml"], "missing.yaml"),
        (["send", "d-18", "submit"], "d-18"),
        (["send", "d-17"], "EVENT requires an argument"),
        (["send", "d 17", "submit"], "d 17"),
        (["pause", "d-18"], "d-18"),
        (["status", "d-18"], "no instance 'd-18'"),
        (["history", "d-18"], "no instance 'd-18'"),
        (["history", "d-17", "--limit", "0"], "expected --limit to be from 1 to 10000, got 0"),
        (["replay", "d-18"], "no instance 'd-18'"),
        (["replay", "d-17", "--to", "2"], "expected --to to be from 1 to 1, got 2"),
        (["replay", "d-17", "--to", "one"], "one"),
        (["replay", "d-17", "--at", "1999-01-01"], "had not started"),
        (["replay", "d-17", "--at", "soon"], "expected --at to be a time like"),
        (["replay", "d-17", "--at", "2030-01-01", "--to", "1"], "expected --to or --at, got both"),
        (["list", "--limit", "-1"], "expected --limit to be from 1 to 10000, got -1"),
        (["list", "--status", "lost"], "expected --status to be one of active, paused,"),
        (["list", "--colour", "red"], "--colour"),
        (["--store", "mysql://x", "list"], "mysql"),
        (["--store", "nowhere", "list"], "nowhere"),
        (["--store", "sqlite:///missing.db", "list"], "missing.db"),
        (["--store", "sqlite:///chart.yaml", "list"], "chart.yaml"),
        (["--store", "sqlite:///no/such/folder.db", "start", "approval"], "no/such/folder.db"),
        (["--nats", "nats://127.0.0.1:1", "send", "d-17", "submit"], "127.0.0.1:1"),
        (["--nats", "ftp://here", "send", "d-17", "submit"], "expected a NATS URL"),
        (["fly"], "unknown command or option 'fly'"),
        (["stauts"], "Did you mean 'status'?"),
        (["--wings"], "unknown command or option '--wings'"),
        (["--store"], "--store"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(started: Cli, arguments: list[str], message: str) -> None:
    result = started(*arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert "Traceback" not in result.err
    assert "unexpected" not in result.err.split(":")[1]


def test_the_owner_is_named_to_who_comes_second(started: Cli, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/statewright.db")
    store.acquire()
    try:
        result = started("send", "d-17", "submit")
        assert (result.code, result.out) == (2, "")
        assert "owned by the process with pid" in result.err
        assert started("status", "d-17").code == 0
        assert started("metrics", "--rebuild").code == 2
    finally:
        store.close()


def test_shared_options_before_and_after_the_command(started: Cli) -> None:
    before = started("--json", "--store", "sqlite:///statewright.db", "status", "d-17")
    after = started("status", "d-17", "--store=sqlite:///statewright.db", "--json")
    assert before == after
    assert before.lines[0]["id"] == "d-17"


def test_the_store_may_come_from_the_environment(started: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEWRIGHT_STORE", "sqlite:///other.db")
    assert "other.db" in started("status", "d-17").err
    assert started("--store", "sqlite:///statewright.db", "status", "d-17").code == 0
    assert started("status", "d-17", "--store", "sqlite:///statewright.db").code == 0
