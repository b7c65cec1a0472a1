"""Looking after a store from the command line: backup, verify, prune, restore; and what is parked."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli
from tests.postgres_server import PASSWORD, new_url

PLAIN = """\
name: plain
context: {amount: int}
initial: draft
states:
  draft: {on: {submit: review}}
  review: {on: {approve: approved}}
  approved: {type: final}
"""


@pytest.fixture
def ended(cli: Cli) -> Cli:
    """Instance d-17 is approved, d-18 is in draft."""
    Path("plain.yaml").write_text(PLAIN)
    for instance_id in ("d-17", "d-18"):
        arguments = ["start", "plain", "--id", instance_id, "--context", '{"amount": 90}', "--chart", "plain.yaml"]
        assert cli(*arguments).code == 0
    assert cli("send", "d-17", "submit").code == 0
    assert cli("send", "d-17", "approve", "--event-id", "e-9").code == 0
    return cli


def _write(statement: str) -> None:
    connection = sqlite3.connect("statewright.db", isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_prune_and_restore(ended: Cli) -> None:
    before = ended("metrics", "--json").lines
    status = ended("status", "d-17", "--json").lines
    assert ended("store", "prune", "--older-than", "1h", "--archive", "a.jsonl.gz", "--json").lines[0]["pruned"] == 0
    assert not Path("a.jsonl.gz").exists()
    done = ended("store", "prune", "--older-than", "0s", "--archive", "a.jsonl.gz", "--json")
    assert done.lines == [{"pruned": 1, "facts": 3, "left": 0, "archive": "a.jsonl.gz"}]
    assert Path("a.jsonl.gz").stat().st_mode & 0o077 == 0, "it holds the facts, as a backup does"
    assert [line["id"] for line in ended("list", "--json").lines] == ["d-18"]
    for command in (("status", "d-17"), ("history", "d-17"), ("send", "d-17", "approve", "--event-id", "e-9")):
        result = ended(*command)
        assert result.code == 2
        assert "'d-17' was pruned at 20" in result.err
    again = ended("start", "plain", "--id", "d-17", "--context", '{"amount": 90}')
    assert (again.code, "was pruned" in again.err) == (1, True)
    for rebuild in ([], ["--rebuild"]):
        assert sorted_states(ended("metrics", "--json", *rebuild).lines) == sorted_states(before)
    assert ended("store", "verify", "--json").lines[0]["pruned"] == 1

    Path("torn.jsonl.gz").write_bytes(Path("a.jsonl.gz").read_bytes()[:30])
    torn = ended("store", "restore", "torn.jsonl.gz")
    assert (torn.code, torn.out) == (0, "0 instances restored, 0 were there already\n")
    assert "torn.jsonl.gz ends in the middle: either a prune was killed there" in torn.err
    assert ended("store", "restore", "a.jsonl.gz", "--json").lines == [
        {"restored": 1, "present": 0, "refused": {}, "torn": False}
    ]
    assert ended("status", "d-17", "--json").lines == status
    assert ended("send", "d-17", "approve", "--event-id", "e-9").out.startswith("duplicate")


def sorted_states(lines: list[dict[str, object]]) -> list[str]:
    return [json.dumps(line, sort_keys=True) for line in lines]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--older-than", "soon", "--archive", "a.jsonl.gz"], "duration such as 90d"),
        (["--older-than", "1d", "--archive", "a.zip"], "*.jsonl.gz"),
        (["--older-than", "1d", "--archive", "nowhere/a.jsonl.gz"], "folder"),
        (["--older-than", "1d", "--archive", "chart.yaml"], "*.jsonl.gz"),
        (["--older-than", "1d", "--archive", "a.jsonl.gz", "--status", "active"], "completed, failed"),
        (["--older-than", "1d"], "archive"),
    ],
)
def test_bad_pruning_is_refused(ended: Cli, arguments: list[str], said: str) -> None:
    result = ended("store", "prune", *arguments)
    assert result.code == 2
    assert said in result.err
    assert len(ended("list", "--json").lines) == 2


def test_backup_and_verify(ended: Cli) -> None:
    assert ended("store", "backup", "copy.db", "--json").lines[0]["instances"] == 2
    assert ended("list", "--json", "--store", "sqlite:///copy.db").lines == ended("list", "--json").lines
    refused = ended("store", "backup", "copy.db")
    assert (refused.code, "exists" in refused.err) == (2, True)
    other = ended("store", "backup", "x.db", "--store", "postgresql://localhost/x")
    assert (other.code, "pg_dump" in other.err) == (2, True)
    assert ended("store", "verify").code == 0
    _write("UPDATE instances SET sequence = 9 WHERE id = 'd-18'")
    found = ended("store", "verify", "--json")
    assert found.code == 1
    assert "d-18" in found.lines[0]["differences"][0]
    broken = ended("store", "backup", "broken.db")
    assert (broken.code, "d-18" in broken.err, Path("broken.db").exists()) == (2, True, False)


def test_there_is_no_store(cli: Cli) -> None:
    for command in (
        ["verify"],
        ["backup", "x.db"],
        ["restore", "x.jsonl.gz"],
        ["prune", "--older-than", "1d", "--archive", "x.jsonl.gz"],
    ):
        assert cli("store", *command).code == 2
    assert not Path("statewright.db").exists()


def test_a_store_in_postgresql_is_pruned_and_restored(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEWRIGHT_STORE", new_url())
    Path("plain.yaml").write_text(PLAIN)
    assert "the database has none yet" in cli("store", "verify").err
    arguments = ["start", "plain", "--id", "d-17", "--context", '{"amount": 90}', "--chart", "plain.yaml"]
    for command in (arguments, ["send", "d-17", "submit"], ["send", "d-17", "approve", "--event-id", "e-9"]):
        assert cli(*command).code == 0
    before = [cli(*command, "--json").lines for command in (["status", "d-17"], ["metrics"])]
    assert cli("store", "prune", "--older-than", "0s", "--archive", "a.jsonl.gz", "--json").lines[0]["pruned"] == 1
    with gzip.open("a.jsonl.gz", "rb") as archive:
        assert PASSWORD.encode() not in archive.read()
    assert "'d-17' was pruned at 20" in cli("status", "d-17").err
    assert cli("metrics", "--json").lines == before[1]
    assert cli("store", "verify", "--json").lines[0]["pruned"] == 1
    assert cli("store", "restore", "a.jsonl.gz", "--json").lines[0]["restored"] == 1
    assert [cli(*command, "--json").lines for command in (["status", "d-17"], ["metrics", "--rebuild"])] == before
    assert cli("store", "verify").code == 0
    refused = cli("store", "backup", "x.db")
    assert (refused.code, "expected a SQLite store; " in refused.err, PASSWORD in refused.err) == (2, True, False)


def test_what_is_parked_without_an_engine(ended: Cli) -> None:
    assert ended("parked", "list").out == "nothing is parked\n"
    columns = "(parked_id, received_at, subject, reason, headers, payload)"
    rows = [("p-1", "statewright.events.d-18", '{"ce-id":"e-1","ce-type":"submit"}', "{}")]
    rows += [("p-2", "statewright.events.d-18", '{"ce-id":"e-2","ce-type":"submit"}', "junk")]
    for parked_id, subject, headers, payload in rows:
        cells = f"'{parked_id}', 1, '{subject}', 'why', '{headers}', x'{payload.encode().hex()}'"
        _write(f"INSERT INTO parked {columns} VALUES ({cells})")
    assert [line["parked_id"] for line in ended("parked", "list", "--json").lines] == ["p-1", "p-2"]
    both = ended("parked", "retry", "--all", "--json")
    assert both.code == 1
    assert both.lines[0]["outcome"]["kind"] == "recorded"
    assert both.lines[1]["error"]["code"] == "invalid"
    assert [line["parked_id"] for line in ended("parked", "list", "--json").lines] == ["p-2"]
    alone = ended("parked", "retry", "p-2")
    assert (alone.code, "to be JSON" in alone.err) == (2, True)
    assert ended("parked", "drop", "p-2", "--reason", "junk").code == 0
    assert ended("parked", "list", "--json").lines == []
    assert ended("parked", "drop", "p-2").code == 2
    assert ended("parked", "drop").code == 2


def test_a_year_is_no_number_of_nanoseconds(ended: Cli) -> None:
    for wrong in ("2026", "20260131", "1769817600"):
        result = ended("replay", "d-18", "--at", wrong)
        assert (result.code, "2030-01-31" in result.err) == (2, True)
    assert ended("replay", "d-18", "--at", "2999-01-31", "--json").lines[0]["id"] == "d-18"
    assert "had not started" in ended("replay", "d-18", "--at", "2001-01-31").err
