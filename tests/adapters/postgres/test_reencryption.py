"""Re-encryption on PostgreSQL: all or nothing, by nobody else's side, and no older copy left in any file."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from eventsourcing.persistence import OperationalError

from statewright.adapters.postgres.datastore import Datastore
from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
from statewright.adapters.postgres.store import PostgresStore
from statewright.engine.cipher import KEYS
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.reencryption import INSTANCES, TABLES, reencrypt
from statewright.engine.runtime import SNAPSHOT_EVERY
from statewright.engine.sealing import _SEALS
from tests.adapters.postgres.searching import EVERYWHERE, dump, holding, tables
from tests.contracts.rows import event
from tests.engine.secrets import NEW, OLD, SAFE, SECRET, fill, ring
from tests.engine.worlds import World, until
from tests.postgres_server import PASSWORD, PostgresServer, new_url, shared_server

PLACES = "SELECT notification_id, originator_id, originator_version FROM stored_events ORDER BY 1"
NUMBERS = "SELECT number, effect_id, state, name FROM effects ORDER BY number"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, SAFE, url=new_url())


@pytest.fixture
def forgetful() -> Iterator[PostgresServer]:
    """A server that removes what it has no more use for of its WAL, instead of keeping the files to write on."""
    server = PostgresServer(wal_recycle="off", min_wal_size="32MB")
    server.start()
    yield server
    server.close()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside an older transaction"])
async def test_a_plain_store_is_encrypted_whole_and_no_file_keeps_a_plain_copy(
    forgetful: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    world = World(tmp_path, SAFE, url=forgetful.new_schema_url())
    async with world:
        await fill(world, many=SNAPSHOT_EVERY)
    forgetful.execute("ANALYZE")
    assert tables(world.url) == EVERYWHERE
    assert {name.split("/")[1] for name in holding(forgetful)} == {"base", "pg_wal"}
    assert rows(world.url, f"SELECT 1 FROM pg_stats WHERE pg_stats::text LIKE '%{SECRET}%' LIMIT 1") == [(1,)]
    before = [rows(world.url, query) for query in (PLACES, NUMBERS)]

    monkeypatch.setenv(KEYS, ring(NEW))
    with pytest.raises(InvalidError, match=r"the store is not encrypted: `statewright reencrypt`"):
        await world.open()
    with psycopg.connect(forgetful.url()) as connection:
        if beside:  # It could see what there was before: no VACUUM would remove that.
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT 1")
        done = reencrypt(world.url)
    assert (done.key, done.facts > SNAPSHOT_EVERY, done.rows > SNAPSHOT_EVERY) == ("new", True, True)
    assert [rows(world.url, query) for query in (PLACES, NUMBERS)] == before
    assert tables(world.url) == set()
    if beside:
        forgetful.execute("VACUUM (FULL) pg_statistic")
    forgetful.execute("SELECT pg_switch_wal()")
    assert holding(forgetful) == []

    async with world:
        again = await world.engine.send("s", "write", {"note": f"{SECRET} fail"}, event_id=f"{SECRET}-f")
        assert again.kind == "duplicate"
        assert (await world.engine.send("s", "write", {"note": SECRET}, event_id="one more")).kind == "recorded"
        await world.settle()
        assert SECRET in (await world.engine.replay("s")).instance.context["note"]
        assert world.engine.recorder.select_parked(1)[0].payload == SECRET.encode()
        assert world.engine.recorder.select_schedules()[0].actor == SECRET
    forgetful.execute("SELECT pg_switch_wal()")
    assert (tables(world.url), holding(forgetful)) == (set(), [])


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
        assert (await world.engine.send("s", "write", {"note": f"{SECRET} fail"}, event_id=f"{SECRET}-f")).kind == (
            "duplicate"
        )
        (scheduled,) = world.engine.recorder.select_schedules()
        assert (scheduled.actor, SECRET in scheduled.context) == (SECRET, True)
    monkeypatch.setenv(KEYS, ring(OLD))
    with pytest.raises(InvalidError, match="encrypted with one of the keys old, got 'new'"):
        await world.open()


async def test_a_key_that_is_missing_and_none_change_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, ring(OLD))
    async with world:
        await fill(world)
    before = dump(world.url)
    monkeypatch.setenv(KEYS, ring(NEW))
    with pytest.raises(InvalidError, match="got 'old'"):
        reencrypt(world.url)
    monkeypatch.delenv(KEYS)
    with pytest.raises(InvalidError, match=f"expected {KEYS} or"):
        reencrypt(world.url)
    assert dump(world.url) == before


async def test_it_is_refused_while_anybody_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world:
        await world.engine.start("safe", {}, id="s")
        monkeypatch.setenv(KEYS, ring(NEW))
        assert world.engine.shares is not None
        named = rf"so have worker {world.engine.shares.worker}, session \d+ \('statewright' at 127.0.0.1"
        with pytest.raises(UnavailableError, match=named) as no:
            await asyncio.to_thread(reencrypt, world.url)  # The engine goes on renewing its leases.
        assert PASSWORD not in str(no.value)
        monkeypatch.delenv(KEYS)
        assert (await world.engine.send("s", "write", {"note": "n"})).kind == "recorded"
    # An engine of an older version takes no lock.
    recorder = PostgresInstanceRecorder(Datastore(world.url))
    recorder.acquire_leases("w-1", ["worker:w-1"], 0, 60_000_000_000)
    recorder.datastore.close()
    monkeypatch.setenv(KEYS, ring(NEW))
    with pytest.raises(UnavailableError, match="expected nobody to hold leases on the store, but so does worker w-1"):
        reencrypt(world.url)


async def test_nobody_opens_the_store_meanwhile_or_goes_on_with_it_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world:
        await fill(world)
    idle = PostgresInstanceRecorder(Datastore(world.url))  # Has read, but not written yet: so it holds nothing.
    assert idle.select_instance("s") is not None
    with PostgresStore(world.url).rewriting() as rewriting:
        assert rewriting.rewrite(INSTANCES, lambda row: row) == 1
        with pytest.raises(UnavailableError, match="the store is being re-encrypted"):
            await world.open()
        with pytest.raises(OperationalError, match="the store is being re-encrypted"):
            idle.insert_events([event("t")])
    with pytest.raises(OperationalError, match="re-encrypted while it was open here: open it anew"):
        idle.insert_events([event("t")])
    idle.datastore.close()
    async with world:
        assert (await world.engine.send("s", "write", {"note": "n"})).kind == "recorded"


async def test_a_kill_in_the_middle_leaves_the_store_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world:
        await fill(world, many=20)
    before = dump(world.url)
    monkeypatch.setenv(KEYS, ring(NEW))
    program = "import sys; from statewright.engine.reencryption import reencrypt; reencrypt(sys.argv[1])"
    with psycopg.connect(world.url) as holding_up:
        # What is written last waits for this row: by then everything else is rewritten, and not committed.
        holding_up.execute("INSERT INTO meta VALUES ('rewritten', '7')")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, world.url)
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO meta%'"
        try:
            await until(lambda: shared_server().execute(waiting) != [], "everything to be rewritten")
            ((session,),) = shared_server().execute(waiting)
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        holding_up.rollback()
    ended = f"SELECT 1 FROM pg_stat_activity WHERE pid = {session}"
    await until(lambda: shared_server().execute(ended) == [], "the server to notice")
    assert dump(world.url) == before
    reencrypt(world.url)
    assert tables(world.url) == set()
    async with world:
        assert (await world.engine.send("s", "write", {"note": "n"})).kind == "recorded"


async def test_a_role_that_does_not_own_the_tables_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world:
        await fill(world)
    server, schema = shared_server(), world.url.rpartition("%3D")[2]
    role = f"clerk_{schema}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}")
    server.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
    monkeypatch.setenv(KEYS, ring(NEW))
    with pytest.raises(UnavailableError, match=f"expected role '{role}' to own the tables .* effects, inbox"):
        reencrypt(server.url(user=role, options=f"?options=-csearch_path%3D{schema}"))
    assert tables(world.url) == EVERYWHERE - {"stored_snapshots"}


def test_whatever_is_sealed_is_rewritten() -> None:
    assert {table.kind for table in TABLES} >= set(_SEALS)
