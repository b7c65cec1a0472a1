"""Encryption at rest on PostgreSQL: what users bring is in no dump, in no column and in no file of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statewright.engine import Engine
from statewright.engine.cipher import KEYS
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.runtime import SNAPSHOT_EVERY
from tests.adapters.postgres.searching import EVERYWHERE, dumped, holding, tables
from tests.engine.secrets import NEW, OLD, SAFE, SECRET, fill, ring
from tests.engine.worlds import World
from tests.postgres_server import PostgresServer, new_url


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.close()


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
