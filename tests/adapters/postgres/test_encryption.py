"""Encryption at rest on PostgreSQL: what users bring is in no dump, in no column and in no file of the server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from statewright.engine import Engine
from statewright.engine.cipher import KEYS
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.runtime import SNAPSHOT_EVERY
from tests.engine.secrets import NEW, OLD, SAFE, SECRET, fill, ring
from tests.engine.worlds import World
from tests.postgres_server import PostgresServer, new_url, program

SOUGHT = (SECRET.encode(), SECRET.encode().hex().encode())
"""A dump shows bytes as hexadecimals."""
EVERYWHERE = {
    "stored_events", "stored_snapshots", "inbox", "instances", "effects", "parked", "schedules",
}  # fmt: skip
"""The tables in which a plain store keeps what `fill` brings."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.close()


def holding(server: PostgresServer) -> list[str]:
    """The names of the server's files, its WAL and its log among them, in which the secret can be read."""
    server.execute("CHECKPOINT")
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(server.folder)) for path in files if SECRET.encode() in path.read_bytes()]


def dumped(url: str) -> bool:
    """Whether the secret is in what `pg_dump` writes."""
    schema = url.rpartition("%3D")[2]
    done = subprocess.run([program("pg_dump"), "-n", schema, "-d", url], capture_output=True, check=True)
    assert b"COPY" in done.stdout
    return any(sought in done.stdout for sought in SOUGHT)


def tables(url: str) -> set[str]:
    """The tables with a row in which the secret can be read, whatever the column."""
    found = set[str]()
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
        for (name,) in names:
            rows = connection.execute(f"SELECT row_to_json(one)::text FROM {name} AS one".encode())
            if any(sought.decode() in row for (row,) in rows for sought in SOUGHT):
                found.add(name)
    return found


async def test_nothing_that_users_brought_can_be_read(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS, ring(NEW))
    world = World(tmp_path, SAFE, url=server.new_schema_url())
    async with world:
        await fill(world, many=SNAPSHOT_EVERY + 20)
        # All is there for who has the key.
        instance = await world.engine.on_reader(world.engine.log.load, "s")
        assert instance is not None
        assert SECRET in instance.context["note"]
        assert (await world.engine.replay("s", to_sequence=instance.sequence)).instance == instance
        assert world.engine.recorder.select_parked(1)[0].payload == SECRET.encode()
        assert SECRET in world.engine.recorder.select_schedules()[0].context
        assert SECRET in (await world.engine.effects("s"))[0].data
    assert (tables(world.url), dumped(world.url), holding(server)) == (set(), False, [])

    # The searches find it where it is.
    monkeypatch.delenv(KEYS)
    plain = World(tmp_path, SAFE, url=server.new_schema_url())
    async with plain:
        await fill(plain, many=SNAPSHOT_EVERY + 20)
    assert (tables(plain.url), dumped(plain.url)) == (EVERYWHERE, True)
    assert {name.split("/")[1] for name in holding(server)} == {"base", "pg_wal"}


async def test_a_repeated_event_is_a_duplicate_under_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, SAFE, url=new_url())
    monkeypatch.setenv(KEYS, ring(OLD))
    async with world:
        await world.engine.start("safe", {}, id="s")
        first = await world.engine.send("s", "write", {"note": "n"}, event_id="e-1", source="shop")
    monkeypatch.setenv(KEYS, ring(NEW, OLD))
    async with world:
        again = await world.engine.send("s", "write", {"note": "n"}, event_id="e-1", source="shop")
        assert (again.kind, again.sequence) == ("duplicate", first.sequence)
    monkeypatch.delenv(KEYS)
    with pytest.raises(InvalidError, match=f"the store is encrypted: set {KEYS}"):
        await world.open()
    async with Engine.open(world.url, read_only=True) as reader:
        assert (await reader.status("s")).context == "null"
        with pytest.raises(UnavailableError, match=f"encrypted with key '(old|new)': set {KEYS}"):
            await reader.history("s")
