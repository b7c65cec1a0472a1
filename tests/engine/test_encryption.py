"""Encryption at rest: nothing that users bring can be read in any file of the store, and all of it comes back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from statewright.adapters.encryption.keyring import KeyRing, new_entry, parse_keys
from statewright.engine import Engine
from statewright.engine.cipher import KEYS
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.recorder import (
    Changes,
    DefinitionRow,
    EffectRow,
    InboxRow,
    InstanceRow,
    ParkedRow,
    ScheduleRow,
    TimerRow,
)
from statewright.engine.reencryption import reencrypt
from statewright.engine.runtime import SNAPSHOT_EVERY
from statewright.engine.steps import StepRow
from statewright.engine.verify import verify_store
from tests.engine.secrets import KEPT, NEW, OLD, SAFE, SECRET, fill, ring
from tests.engine.worlds import World


def holding(folder: Path, secret: str = SECRET) -> list[str]:
    """The names of the files in which the secret can be read."""
    return [path.name for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "store").mkdir()
    return World(tmp_path / "store" / "store.db", SAFE)


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


async def test_no_byte_of_the_files_shows_what_users_brought(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, ring(NEW))
    async with world:
        await fill(world, many=SNAPSHOT_EVERY + 20)
        assert {"store.db", "store.db-wal"} <= {path.name for path in world.path.parent.iterdir()}
        assert holding(world.path.parent) == []
        # All is there for who has the key.
        instance = (await world.engine.replay("s")).instance
        assert SECRET in instance.context["note"]
        loaded = await world.engine.on_reader(world.engine.log.load, "s")
        assert loaded is not None
        assert loaded == (await world.engine.replay("s", to_sequence=loaded.sequence)).instance
        assert world.engine.recorder.select_parked(1)[0].payload == SECRET.encode()
        assert any(SECRET in row.data for row in await world.engine.effects("s"))
        assert any(SECRET in row.error for row in await world.engine.effects("s"))
    assert holding(world.path.parent) == []
    connection = sqlite3.connect(world.path)
    assert connection.execute("SELECT count(*) FROM stored_snapshots").fetchone()[0] > 0
    connection.execute("VACUUM")
    connection.close()
    assert holding(world.path.parent) == []


async def test_the_search_for_the_secret_finds_it_in_a_plain_store(world: World) -> None:
    async with world:
        await fill(world)
    assert holding(world.path.parent) == ["store.db"]


async def test_a_repeated_event_is_a_duplicate_also_after_a_restart_and_under_another_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = ("s", "write", {"note": "n"})
    monkeypatch.setenv(KEYS, ring(OLD))
    async with world:
        await world.engine.start("safe", {}, id="s")
        first = await world.engine.send(*event, event_id="e-1", source="shop")
    monkeypatch.setenv(KEYS, ring(NEW, OLD))
    async with world:
        again = await world.engine.send(*event, event_id="e-1", source="shop")
        assert (again.kind, again.sequence) == ("duplicate", first.sequence)
        row = world.engine.recorder.find_inbox("s", "shop", "e-1")
        assert row is not None
        assert row.event_id == "e-1"


async def test_keys_are_rotated_and_the_old_one_is_not_needed_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS, ring(OLD))
    async with world:
        await fill(world, many=SNAPSHOT_EVERY)
    monkeypatch.setenv(KEYS, ring(NEW, OLD))
    async with world:
        await world.engine.send("s", "write", {"note": f"{SECRET} under the new key"}, event_id="n-1")
        await world.settle()
    assert reencrypt(world.url).key == "new"
    monkeypatch.setenv(KEYS, ring(NEW))
    async with world:
        assert (await world.engine.status("s")).sequence > SNAPSHOT_EVERY
        (scheduled,) = world.engine.recorder.select_schedules()
        assert (scheduled.actor, SECRET in scheduled.context) == (SECRET, True)
    monkeypatch.setenv(KEYS, ring(OLD))
    with pytest.raises(InvalidError, match="encrypted with one of the keys old, got 'new'"):
        await world.open()


async def test_a_plain_store_is_encrypted_whole_and_keeps_no_plain_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world:
        await fill(world, many=SNAPSHOT_EVERY)
    monkeypatch.setenv(KEYS, ring(NEW))
    with pytest.raises(InvalidError, match=r"the store is not encrypted: `statewright reencrypt`"):
        await world.open()
    done = reencrypt(world.url)
    assert done.facts > SNAPSHOT_EVERY
    assert holding(world.path.parent) == []
    async with world:
        again = await world.engine.send("s", "write", {"note": f"{SECRET} fail"}, event_id=f"{SECRET}-f")
        assert again.kind == "duplicate"


async def test_reencryption_that_misses_a_key_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, ring(OLD))
    async with world:
        await fill(world)
    before = dump(world.path)
    monkeypatch.setenv(KEYS, ring(NEW))
    with pytest.raises(InvalidError, match="got 'old'"):
        reencrypt(world.url)
    assert dump(world.path) == before


async def test_a_wrong_key_and_no_key_are_said_at_the_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, ring(NEW))
    async with world:
        await fill(world)
    impostor = new_entry("new")
    monkeypatch.setenv(KEYS, ring(impostor))
    with pytest.raises(InvalidError, match="key 'new' is not what was written here") as wrong:
        await world.open()
    assert impostor.partition(":")[2] not in str(wrong.value)
    monkeypatch.delenv(KEYS)
    with pytest.raises(InvalidError, match=f"the store is encrypted: set {KEYS}"):
        await world.open()


async def test_without_the_key_a_reader_sees_where_instances_are_and_nothing_of_what_they_hold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS, ring(NEW))
    async with world:
        await fill(world)
    monkeypatch.delenv(KEYS)
    async with Engine.open(world.url, read_only=True) as reader:
        row = await reader.status("s")
        assert (row.status, row.configuration, row.context) == ("active", '["open"]', "null")
        assert {effect.data for effect in await reader.effects("s")} == {"null"}
        with pytest.raises(UnavailableError, match=f"encrypted with key 'new': set {KEYS}"):
            await reader.history("s")


async def test_a_key_given_in_python_counts(world: World) -> None:
    await world.open(cipher_key=ring(NEW))
    await fill(world)
    await world.engine.close()
    assert holding(world.path.parent) == []


@pytest.mark.parametrize("table", ["instances", "effects"])
async def test_a_value_that_was_moved_to_another_row_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setenv(KEYS, ring(NEW))
    await world.open()
    await fill(world, many=2)
    await world.engine.start("safe", {"note": "other"}, id="t")
    await world.engine.close()
    connection = sqlite3.connect(world.path)
    if table == "instances":
        connection.execute("UPDATE instances SET context = (SELECT context FROM instances WHERE id = 's')")
    else:
        connection.execute("UPDATE effects SET data = (SELECT data FROM effects LIMIT 1)")
    connection.commit()
    connection.close()
    async with Engine.open(world.url, read_only=True) as reader:
        with pytest.raises(InvalidError, match="not what was written here"):
            await (reader.status("t") if table == "instances" else reader.effects("s"))


async def test_compression_can_be_switched_on_and_off_with_and_without_encryption(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 0
    for number, (compressor, keys) in enumerate([("", ""), ("zlib", ""), ("", "")]):
        monkeypatch.setenv("STATEWRIGHT_COMPRESSOR", compressor)
        monkeypatch.setenv(KEYS, keys)
        async with world:
            await world.engine.start("safe", {"note": "long " * 1_000}, id=f"c{number}")
            for known in range(number + 1):
                assert (await world.engine.replay(f"c{known}")).instance.context["note"].startswith("long")
    monkeypatch.setenv(KEYS, ring(NEW))
    monkeypatch.setenv("STATEWRIGHT_COMPRESSOR", "zlib")
    reencrypt(world.url)
    async with world:
        await world.engine.start("safe", {"note": "long " * 1_000}, id="c3")
        size = len(world.engine.recorder.select_events("c3")[0].state)
        assert (await world.engine.replay("c1")).instance.context["note"].startswith("long")
    assert size < 1_000
    monkeypatch.setenv("STATEWRIGHT_COMPRESSOR", "rar")
    with pytest.raises(InvalidError, match="expected STATEWRIGHT_COMPRESSOR to be zlib, got 'rar'"):
        await world.open()


def test_a_copy_of_an_encrypted_store_verifies_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setenv(KEYS, ring(NEW))
    world = World(tmp_path / "store.db", SAFE)

    async def make() -> None:
        async with world:
            await fill(world)

    asyncio.run(make())
    shutil.copy(world.path, tmp_path / "copy.db")
    assert verify_store(f"sqlite:///{tmp_path / 'copy.db'}").is_true


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected entry 1 of the key ring to be name:base64"),
        ("k1:c2hvcnQ=", "expected key 'k1' of the key ring to be 32 bytes"),
        (OLD, "an entry 'identities'"),
        (KEPT[0], "expected the key ring to hold a key"),
        (f"{OLD} {OLD} {KEPT[0]}", "'old' twice"),
    ],
    ids=["empty", "short", "no identities", "no key", "twice"],
)
def test_a_key_ring_that_cannot_be_read_says_why_without_showing_a_key(text: str, expected: str) -> None:
    with pytest.raises(InvalidError, match=expected) as refused:
        parse_keys(text)
    for entry in (OLD, KEPT[0]):
        assert entry.partition(":")[2] not in str(refused.value)
    assert OLD.partition(":")[2] not in repr(KeyRing.from_text(ring(OLD)))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(ring(OLD))
    os.chmod(path, 0o640)
    with pytest.raises(InvalidError, match="readable by its user only"):
        KeyRing({"STATEWRIGHT_CIPHER_KEY_FILE": str(path)})
    os.chmod(path, 0o600)
    assert KeyRing({"STATEWRIGHT_CIPHER_KEY_FILE": str(path)}).first == "old"


def test_whoever_adds_a_column_decides_whether_it_is_secret() -> None:
    """If this fails, seal the new column in `engine/sealing.py` (or say in docs/security.md that it is readable), and
    add it here."""
    assert set(Changes.__struct_fields__) == {
        "inbox", "instances", "timers_cleared", "timers_set", "effects_requested", "effects_ended", "instances_closed",
        "statuses_kept", "steps",
    }  # fmt: skip
    rows = (InboxRow, InstanceRow, TimerRow, EffectRow, ParkedRow, DefinitionRow, ScheduleRow, StepRow)
    assert [row._fields for row in rows] == [
        ("instance_id", "source", "event_id", "sequence", "digest"),
        (
            "id", "definition", "version", "status", "configuration", "context", "sequence", "started_at", "updated_at",
            "ended_at", "digest", "failure", "parent",
        ),
        ("instance_id", "timer_id", "due_at", "event", "partition"),
        (
            "effect_id", "instance_id", "partition", "name", "kind", "state", "attempt", "due_at", "lease_epoch",
            "data", "error", "policy", "details",
        ),
        ("parked_id", "received_at", "subject", "reason", "headers", "payload"),
        ("name", "version", "digest", "json"),
        (
            "id", "definition", "version", "cron", "tz", "context", "catch_up", "overlap", "end_at", "status",
            "next_at", "last_at", "note", "actor", "created_at",
        ),
        ("instance_id", "step", "status", "sequence", "started_at", "ended_at"),
    ]  # fmt: skip
