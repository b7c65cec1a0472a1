"""Stores that can't be used, or not now: a clear error, nothing lost, and the rest still served."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.adapters.sqlite.schema import SCHEMA_VERSION
from statewright.engine import Engine, ExternalEvent
from statewright.engine.errors import InvalidError, NotFoundError, UnavailableError
from statewright.engine.verify import verify_store
from tests.engine.charts import COUNTER
from tests.engine.worlds import World


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
    execute(world.path, "PRAGMA user_version = 99")
    before = world.path.read_bytes()

    for read_only in (False, True):
        with pytest.raises(
            InvalidError, match=rf"schema version {SCHEMA_VERSION} or older, but .* has version 99.* upgrade"
        ):
            await world.open(read_only=read_only)

    assert world.path.read_bytes() == before
    execute(world.path, f"PRAGMA user_version = {SCHEMA_VERSION}")
    async with world:
        assert (await world.engine.send("c", "add", 1)).kind == "recorded"


async def test_a_fact_of_a_newer_version_stops_only_its_own_instance(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="new")
        await world.engine.start("counter", id="old")
    execute(
        world.path,
        "UPDATE stored_events SET state = replace(state, '\"schema\":1', '\"schema\":7') WHERE originator_id = 'new'",
    )
    await world.open()

    new, old = await asyncio.gather(
        world.engine.send("new", "add", 1), world.engine.send("old", "add", 1), return_exceptions=True
    )

    assert isinstance(new, UnavailableError)
    assert "it has schema 7, this version reads up to 1; upgrade Statewright" in str(new)
    assert not isinstance(old, BaseException)
    assert old.kind == "recorded"
    with pytest.raises(UnavailableError, match="it has schema 7"):
        await world.facts("new")
    assert (await world.engine.status("new")).status == "active"
    await world.engine.close()


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nowhere", InvalidError, "expected a store URL such as sqlite:///app.db, got 'nowhere'"),
        ("mysql://x", InvalidError, "expected one of the installed statewright.stores .*sqlite.*, got store URL"),
        ("sqlite:///{folder}/no/such/folder/store.db", UnavailableError, "no/such/folder"),
        ("sqlite:///{folder}", (InvalidError, UnavailableError), "{folder}"),
        ("sqlite:///{folder}/text.db", InvalidError, "text.db"),
        ("sqlite:///{folder}/other.db", InvalidError, "another application's database"),
    ],
)
async def test_what_is_no_store_is_refused(tmp_path: Path, url: str, error: Any, message: str) -> None:
    (tmp_path / "text.db").write_text("This is a text, and a long one, but it is not a database. " * 20)
    execute(tmp_path / "other.db", "CREATE TABLE songs (title TEXT)")

    with pytest.raises(error, match=message.format(folder=tmp_path)):
        async with Engine.open(url.format(folder=tmp_path)):
            pass


async def test_reading_what_is_not_there_is_not_found_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no such file"):
        async with Engine.open(f"sqlite:///{tmp_path / 'store.db'}", read_only=True):
            pass
    assert os.listdir(tmp_path) == []


async def test_a_store_that_becomes_read_only_can_be_read_and_says_that_it_cannot_be_written(disk: Path) -> None:
    world = World(disk / "store.db", COUNTER)
    async with world:
        await world.engine.start("counter", id="c")
    remount(disk, "ro")

    with pytest.raises(UnavailableError, match=r"store\.db' can't be (locked|opened|written)"):
        await world.open()
    async with Engine.open(world.url, read_only=True) as reader:
        assert (await reader.status("c")).status == "active"
        assert len(await reader.history("c")) == 1

    remount(disk, "rw")
    async with world:
        assert (await world.engine.send("c", "add", 1)).sequence == 2


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


async def test_a_full_disk_refuses_what_it_cannot_hold_and_loses_nothing(disk: Path) -> None:
    world = World(disk / "store.db", COUNTER)
    async with world:
        for name in ("c", "d"):
            await world.engine.start("counter", id=name)
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 1_500_000)

        acknowledged, refused = await fill(world, 200)

        assert acknowledged
        assert refused
        assert "can't be written, nothing was recorded: " in str(refused[0])
        await serves_on(world, acknowledged)
        ballast.unlink()
        await catches_up(world)
    assert verify_store(world.url).differences == []


async def test_a_full_quota_refuses_what_it_cannot_hold_and_loses_nothing(world: World) -> None:
    """The same with SQLite's own limit, which needs no disk of its own."""
    async with world:
        for name in ("c", "d"):
            await world.engine.start("counter", id=name)
        await set_quota(world, 100)

        acknowledged, refused = await fill(world, 50)

        assert acknowledged
        assert refused
        assert str(refused[0]) == "the store can't be written, nothing was recorded: database or disk is full"
        await serves_on(world, acknowledged)
        await set_quota(world, 1_000_000)
        await catches_up(world)


async def set_quota(world: World, pages: int) -> None:
    recorder = world.engine.recorder
    assert isinstance(recorder, SQLiteInstanceRecorder)

    def limit() -> None:
        with recorder.datastore.write() as connection:
            connection.execute(f"PRAGMA max_page_count = {pages}")

    await world.engine.on_writer(limit)


async def fill(world: World, count: int) -> tuple[dict[str, int], list[UnavailableError]]:
    """Send events that take much room, one by one: the sequences of those acknowledged by id, and the refusals."""
    acknowledged: dict[str, int] = {}
    refused = []
    for n in range(count):
        try:
            outcome = await world.engine.send("c", "nonsense", "x" * 20_000, event_id=f"e-{n}")
        except UnavailableError as error:
            refused.append(error)
        else:
            acknowledged[f"e-{n}"] = outcome.sequence
    return acknowledged, refused


async def serves_on(world: World, acknowledged: dict[str, int]) -> None:
    """What was acknowledged is there, in memory and on disk; queries and duplicates are answered."""
    facts = {fact.trigger.id: fact.sequence for fact in await world.facts("c", after=1)}
    assert facts == acknowledged
    assert (await world.engine.status("c")).sequence == 1 + len(acknowledged)
    known = next(iter(acknowledged))
    again = world.engine.submit(ExternalEvent("c", "nonsense", "x" * 20_000, known))
    unknown = world.engine.submit(ExternalEvent("nobody", "add", 1, "e"))
    assert ((await again).kind, (await again).sequence) == ("duplicate", acknowledged[known])
    with pytest.raises(NotFoundError):
        await unknown


async def catches_up(world: World) -> None:
    """There is room again: the same senders' retries are recorded, each once, in the engine that is still open."""
    for n in range(5):
        await world.engine.send("c", "nonsense", "x" * 20_000, event_id=f"e-{n}")
        assert (await world.engine.send("d", "add", n)).kind == "recorded"
    facts = await world.facts("c", after=1)
    assert len({fact.trigger.id for fact in facts}) == len(facts)
    assert (await world.engine.status("d")).context == '{"total":10,"seen":[0,1,2,3,4]}'
