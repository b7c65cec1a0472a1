"""Snapshots and the cache: shortcuts that nobody can see."""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec

from statewright.engine import ExternalEvent
from statewright.engine.requests import ControlRequest
from statewright.engine.residents import SEEN_MAX, Residents, load_resident
from statewright.engine.runtime import SNAPSHOT_EVERY
from tests.engine.worlds import World, until


def snapshots(world: World) -> list[tuple[str, int]]:
    connection = sqlite3.connect(world.path)
    rows = connection.execute("SELECT originator_id, originator_version FROM stored_snapshots ORDER BY 1, 2").fetchall()
    connection.close()
    return rows


async def add(world: World, instance_id: str, count: int) -> None:
    await asyncio.gather(*(world.engine.send(instance_id, "add", 1, event_id=f"e-{n}") for n in range(count)))


async def test_an_instance_is_snapshotted_now_and_then_and_loads_from_it_as_from_all_its_facts(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        for n in range(250):
            await world.engine.send("c", "add", n)
        await until(lambda: len(snapshots(world)) == 2, "two snapshots")

        assert snapshots(world) == [("c", SNAPSHOT_EVERY), ("c", 2 * SNAPSHOT_EVERY)]
        whole = (await world.engine.replay("c")).instance
        assert world.engine.log.load("c") == whole
        await world.restart()
        assert (await world.engine.send("c", "add", 1)).sequence == 252


async def test_a_snapshot_of_another_shape_is_ignored(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await add(world, "c", SNAPSHOT_EVERY)
        await until(lambda: snapshots(world), "a snapshot")
        expected = world.engine.log.load("c")
        await world.engine.close()

        connection = sqlite3.connect(world.path)
        stored = connection.execute("SELECT CAST(state AS BLOB) FROM stored_snapshots").fetchone()[0]
        assert msgspec.json.decode(stored)["schema"] == 1
        for state in (
            stored.replace(b'"schema":1', b'"schema":99').replace(b'"total":', b'"totl":'),
            b'{"type":"instance_snapshot","schema":1,"instance":{"id":"c"}}',
            b"not even JSON",
        ):
            assert state != stored
            connection.execute("UPDATE stored_snapshots SET state = ?", (state,))
            connection.commit()
            await world.open()
            assert world.engine.log.load("c") == expected
            await world.engine.close()
        connection.close()

        await world.open()
        assert (await world.engine.send("c", "add", 1)).kind == "recorded"


async def test_a_snapshot_that_was_lost_is_no_loss(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        await add(world, "c", SNAPSHOT_EVERY)
        await until(lambda: snapshots(world), "a snapshot")
        connection = sqlite3.connect(world.path)
        connection.execute("DELETE FROM stored_snapshots")
        connection.commit()
        connection.close()
        world.forget("c")

        assert (await world.engine.send("c", "add", 1, event_id="e-3")).kind == "duplicate"
        assert (await world.engine.send("c", "add", 1)).sequence == SNAPSHOT_EVERY + 2


async def test_instances_that_are_evicted_mid_life_behave_as_if_they_were_not(world: World) -> None:
    """A cache of three for ten instances, and a batch of all: each is read again and again."""
    async with world:
        world.engine._running.residents = Residents(limit=3)
        names = [f"c-{n}" for n in range(10)]
        await asyncio.gather(*(world.engine.start("counter", id=name) for name in names))

        for round_ in range(5):
            outcomes = await asyncio.gather(
                *(world.engine.send(name, "add", round_, event_id=f"e-{round_}") for name in names for _ in range(2))
            )
            assert [outcome.kind for outcome in outcomes] == ["recorded", "duplicate"] * 10
            assert len(world.engine._running.residents) == 3

        assert {(await world.engine.status(name)).context for name in names} == {'{"total":10,"seen":[0,1,2,3,4]}'}


async def test_an_instance_in_memory_is_what_the_log_makes_of_it(world: World) -> None:
    async with world:
        await world.engine.start("timers", id="t")
        for name in ("set_many", "burst", "ring.x", "wait", "nonsense"):
            world.engine.submit(ExternalEvent("t", name, None, name))
        world.engine.submit(ControlRequest("t", "pause"))
        await world.engine.send("t", "leave")

        live = world.engine._running.residents.get("t")
        loaded = load_resident(world.engine.log, world.engine.definitions, "t")

        assert live is not None
        assert loaded is not None
        assert msgspec.json.encode(live.instance) == msgspec.json.encode(loaded.instance)
        assert msgspec.json.encode(live.snapshot) == msgspec.json.encode(loaded.snapshot)
        assert (live.machine, live.complete) == (loaded.machine, True)
        assert (loaded.seen, loaded.complete) == ({}, False), "the store is asked when an identity comes again"


async def test_identities_beyond_those_in_memory_are_still_known(world: World) -> None:
    async with world:
        await world.engine.start("approval", {"amount": 5}, id="d")
        events = [ExternalEvent("d", "nonsense", n, f"e-{n}") for n in range(SEEN_MAX + 50)]
        firsts = await asyncio.gather(*(world.engine.submit(event) for event in events))

        for restarted in (False, True):
            if restarted:
                await world.restart()
            for n in (0, 49, SEEN_MAX - 1, SEEN_MAX + 49):
                again = await world.engine.submit(events[n])
                assert again == msgspec.structs.replace(firsts[n], kind="duplicate")
            resident = world.engine._running.residents.get("d")
            assert resident is not None
            assert not resident.complete
            assert len(resident.seen) <= SEEN_MAX + 1
        assert len(await world.facts("d")) == 1 + len(events)
