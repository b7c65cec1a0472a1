"""keygen and reencrypt, and what is shown with and without the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli
from tests.postgres_server import new_url


def test_a_store_is_encrypted_and_read_with_its_key_only(
    started: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = started
    assert (
        cli("reencrypt").err
        == "statewright: expected STATEWRIGHT_CIPHER_KEY or STATEWRIGHT_CIPHER_KEY_FILE to be set\n"
    )
    assert cli("keygen", "keys", "--json").lines == [{"file": "keys", "key": "k1"}]
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "keys")
    refused = cli("send", "d-17", "submit")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "`statewright reencrypt` does that" in refused.err
    assert cli("reencrypt", "--json").lines == [{"key": "k1", "facts": 1, "rows": 1}]
    assert cli("send", "d-17", "submit").code == 0
    assert cli("status", "d-17", "--json").lines[0]["context"]["amount"] == 90

    assert cli("keygen", "keys", "--json").lines == [{"file": "keys", "key": "k2"}]
    assert cli("reencrypt", "--json").lines[0]["key"] == "k2"
    lines = (tmp_path / "keys").read_text().splitlines()
    (tmp_path / "keys").write_text("\n".join(line for line in lines if not line.startswith("k1:")))
    assert cli("history", "d-17", "--json").code == 0

    monkeypatch.delenv("STATEWRIGHT_CIPHER_KEY_FILE")
    shown = cli("status", "d-17", "--json")
    assert (shown.code, shown.lines[0]["context"], shown.lines[0]["configuration"]) == (0, None, ["review", "first"])
    assert "to see the context set STATEWRIGHT_CIPHER_KEY" in shown.err
    history = cli("history", "d-17")
    assert (history.code, history.err.count("\n")) == (2, 1)
    assert "encrypted with key 'k2'" in history.err


def test_a_store_in_postgresql_is_encrypted_while_no_engine_runs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEWRIGHT_STORE", new_url())
    cli("keygen", "keys")
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "keys")
    none = cli("reencrypt")
    assert (none.code, "the database has none yet" in none.err) == (2, True)
    monkeypatch.delenv("STATEWRIGHT_CIPHER_KEY_FILE")
    assert cli("start", "approval", "--id", "d-17", "--context", '{"amount": 90}', "--chart", "chart.yaml").code == 0
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "keys")
    assert "`statewright reencrypt` does that" in cli("send", "d-17", "submit").err
    assert cli("reencrypt").out == "1 facts and 1 rows are encrypted with key 'k1'\n"
    assert cli("send", "d-17", "submit").code == 0
    assert cli("status", "d-17", "--json").lines[0]["context"]["amount"] == 90
    monkeypatch.delenv("STATEWRIGHT_CIPHER_KEY_FILE")
    assert "the store is encrypted" in cli("send", "d-17", "approve").err


def test_an_encrypted_store_has_metrics_and_can_be_verified_and_pruned(
    started: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = started
    cli("keygen", "keys")
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "keys")
    cli("reencrypt")
    assert cli("cancel", "d-17").code == 0
    before = cli("metrics", "--json").lines
    assert [line["cancelled"] for line in before] == [1]
    assert cli("store", "verify").code == 0
    pruned = cli("store", "prune", "--older-than", "0s", "--archive", "ended.jsonl.gz", "--json")
    assert (pruned.code, pruned.err) == (0, "")
    assert cli("status", "d-17").code == 2
    assert cli("metrics", "--json").lines == before
    assert cli("store", "restore", "ended.jsonl.gz").code == 0
    assert cli("status", "d-17", "--json").lines[0]["context"]["amount"] == 90

    monkeypatch.delenv("STATEWRIGHT_CIPHER_KEY_FILE")
    refused = cli("store", "verify")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "the store is encrypted: set STATEWRIGHT_CIPHER_KEY" in refused.err


def test_no_store_is_made_to_be_encrypted(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("keygen", "keys")
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "keys")
    refused = cli("reencrypt")
    assert (refused.code, "there is no such file" in refused.err) == (2, True)
    assert not (tmp_path / "statewright.db").exists()


def test_key_files_that_cannot_be_used(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "can't be written" in cli("keygen", "nowhere/keys").err
    (tmp_path / "notes").write_text("dear diary")
    os.chmod(tmp_path / "notes", 0o600)
    assert "to be name:base64" in cli("keygen", "notes").err
    assert (tmp_path / "notes").read_text() == "dear diary"
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "gone")
    assert cli("list").err.startswith("statewright: ")
