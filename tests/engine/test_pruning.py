"""A pruned instance leaves its id taken, its answers clear, and nothing that can be recorded anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from eventsourcing.persistence import Tracking

from statewright.adapters.cli.archive import ArchivedInstance, read_archive
from statewright.adapters.cli.pruning import PrunedSome, Restored, prune, restore
from statewright.adapters.cli.wiring import metrics_view
from statewright.adapters.encryption.keyring import IDENTITIES, new_entry
from statewright.engine.cipher import KEYS
from statewright.engine.errors import AlreadyExistsError, BusyError, InvalidError, NotFoundError
from statewright.engine.events import ENDED, InstancePruned
from statewright.engine.followers import Projection
from statewright.engine.log import LoggedFact
from statewright.engine.recorder import Changes, EndedFilter
from statewright.projections.metrics import kept_of
from statewright.projections.metrics_view import MetricsProjection, read_metrics, rebuild_metrics
from tests.engine.charts import from_yaml
from tests.engine.worlds import World

CHILD = from_yaml("""
name: child
initial: on
states:
  on: {on: {end: over}}
  over: {type: final}
""")
PARENT = from_yaml("""
name: parent
initial: asking
states:
  asking:
    invoke: {id: child, src: child}
    on: {done.invoke.child: heard}
  heard:
    on: {close: answered}
  answered: {type: final}
""")


async def prune_all(world: World, path: Path) -> PrunedSome:
    wheres = [EndedFilter(status=status, ended_before=world.clock.now() + 1) for status in sorted(ENDED)]
    return await prune(world.engine, world.engine.upkeep, wheres, str(path), world.url)


async def stopped(world: World, *ids: str) -> None:
    for instance_id in ids:
        await world.engine.start("counter", id=instance_id)
        for number in range(3):
            await world.engine.send(instance_id, "add", number, event_id=f"e-{number}")
        await world.engine.send(instance_id, "stop", event_id="stop")


async def test_every_question_is_answered(world: World, tmp_path: Path) -> None:
    async with world:
        await stopped(world, "c-1")
        first = await world.engine.start("counter", id="c-2")
        done = await prune_all(world, tmp_path / "a.jsonl.gz")
        assert (done.pruned, done.facts, done.left) == (1, 5, 0)
        for _ in range(2):  # From memory, then after a restart.
            for ask in (
                lambda: world.engine.send("c-1", "add", 0, event_id="e-0"),
                lambda: world.engine.send("c-1", "add", 0, event_id="new"),
                lambda: world.engine.status("c-1"),
                lambda: world.engine.history("c-1"),
                lambda: world.engine.replay("c-1"),
                lambda: world.engine.cancel("c-1"),
            ):
                with pytest.raises(NotFoundError, match="'c-1' was pruned at 2023-11-14T22:13:20Z"):
                    await ask()
            with pytest.raises(AlreadyExistsError, match="was pruned"):
                await world.engine.start("counter", id="c-1")
            assert [row.id for row in await world.engine.list()] == ["c-2"]
            assert await world.engine.start("counter", id="c-2") == first
            await world.restart()
        assert [fact.topic for fact in world.engine.recorder.located_events("c-1")] == ["instance_pruned"]


async def test_who_still_has_it_in_memory_records_nothing(world: World, tmp_path: Path) -> None:
    """As another worker would: the prune goes past this engine's cache."""
    async with world:
        await stopped(world, "c-1")
        recorder = world.engine.recorder
        facts = await world.facts("c-1")
        last = facts[-1]
        tombstone = InstancePruned(
            instance_id="c-1", sequence=6, time=1, definition="counter", version="1", digest="", status="completed",
            started_at=1, ended_at=last.time, kept=kept_of(facts),
        )  # fmt: skip
        stored = world.engine.log.mapper.to_stored_event(tombstone)
        assert await world.engine.on_writer(recorder.prune, [stored]) == ["c-1"]
        with pytest.raises(NotFoundError, match="was pruned"):
            await world.engine.send("c-1", "stop", event_id="stop")  # A duplicate, by what is in memory.
        with pytest.raises(NotFoundError, match="was pruned"):
            await world.engine.send("c-1", "add", 1, event_id="new")
        with pytest.raises(AlreadyExistsError, match="was pruned"):
            await world.engine.start("counter", id="c-1")
        assert len(recorder.located_events("c-1")) == 1


async def test_it_comes_back_as_it_was(world: World, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    async with world:
        await stopped(world, "c-1", "c-2")
        before, located = await world.engine.status("c-1"), world.engine.recorder.located_events("c-1")
        await prune_all(world, path)
        assert await restore(world.engine, str(path)) == Restored(restored=2)
        assert await world.engine.status("c-1") == before
        assert world.engine.recorder.located_events("c-1") == located
        assert (await world.engine.send("c-1", "add", 0, event_id="e-0")).kind == "duplicate"
        assert (await world.engine.send("c-1", "add", 9, event_id="e-9")).kind == "refused"
        again = await restore(world.engine, str(path))
        assert (again.restored, again.present, list(again.refused)) == (0, 1, ["c-1"])


async def test_an_instance_that_something_happens_to_meanwhile_is_left(world: World, tmp_path: Path) -> None:
    async with world:
        await stopped(world, "c-1")

        class Late:
            async def prune(self, tombstones: object, *, position: int) -> object:
                await world.engine.send("c-1", "add", 1, event_id="late")
                return await world.engine.upkeep.prune(tombstones, position=position)  # type: ignore[arg-type]

        wheres = [EndedFilter(status="completed", ended_before=world.clock.now() + 1)]
        done = await prune(world.engine, Late(), wheres, str(tmp_path / "a.jsonl.gz"), world.url)  # type: ignore[arg-type]
        assert (done.pruned, done.left) == (0, 1)
        assert len(await world.facts("c-1")) == 6


async def test_a_family_stays_together_while_one_of_it_runs(tmp_path: Path) -> None:
    world = World(tmp_path / "store.db", PARENT, CHILD)

    async def child_of(parent: str) -> str:
        await world.engine.start("parent", id=parent)
        await world.settle()
        (child,) = [row.id for row in await world.engine.list() if row.parent == parent]
        return child

    async with world:
        child = await child_of("p")
        await world.engine.send(child, "end")
        await world.settle()
        assert (await world.engine.status(child)).status == "completed"
        assert (await prune_all(world, tmp_path / "1.jsonl.gz")).pruned == 0  # Its parent runs.

        orphan = await child_of("q")
        await world.restart(run_due=False)
        await world.engine.cancel("q")
        assert (await world.engine.status(orphan)).status == "active"
        assert (await prune_all(world, tmp_path / "2.jsonl.gz")).pruned == 0  # Its child runs.

        await world.restart()
        await world.settle()
        await world.engine.send("p", "close")
        assert (await prune_all(world, tmp_path / "3.jsonl.gz")).pruned == 4
        assert await world.engine.list() == []
        world.verify()
        assert await restore(world.engine, str(tmp_path / "3.jsonl.gz")) == Restored(restored=4)


async def test_a_parent_that_stays_knows_a_child_that_was_pruned(tmp_path: Path) -> None:
    """Verifying doesn't miss what is in the archive."""
    world = World(tmp_path / "store.db", PARENT, CHILD)
    async with world:
        await world.engine.start("parent", id="p")
        await world.settle()
        await world.engine.send("p-1-0", "end")
        await world.settle()
        await world.engine.send("p", "close")
        children = EndedFilter(status="completed", ended_before=world.clock.now() + 1, definition="child")
        done = await prune(world.engine, world.engine.upkeep, [children], str(tmp_path / "a.jsonl.gz"), world.url)
        assert done.pruned == 1
        world.verify()


class Slow:
    """A projection that has seen nothing until it is told to go."""

    name = "slow"

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def position(self) -> int:
        return 0

    async def process(self, facts: list[LoggedFact]) -> None:
        await self.go.wait()


async def test_a_projection_that_lags_is_waited_for(world: World, tmp_path: Path) -> None:
    slow = Slow()
    follows: Projection = slow  # type: ignore[assignment]
    async with world:
        await stopped(world, "c-1")
        await world.engine.attach(follows)
        pruning = asyncio.ensure_future(prune_all(world, tmp_path / "a.jsonl.gz"))
        await asyncio.wait([pruning], timeout=0.2)
        assert len(await world.facts("c-1")) == 5
        slow.go.set()
        assert (await pruning).pruned == 1


async def test_a_projection_that_has_tracked_less_and_does_not_follow_refuses(world: World, tmp_path: Path) -> None:
    async with world:
        await stopped(world, "c-1")
        facts = await world.facts("c-1")
        tombstone = InstancePruned(
            instance_id="c-1", sequence=6, time=1, definition="counter", version="1", digest="", status="completed",
            started_at=1, ended_at=facts[-1].time,
        )  # fmt: skip
        await world.engine.on_writer(world.engine.recorder.insert_tracking, Tracking("elsewhere", 2))
        with pytest.raises(BusyError, match="'elsewhere' has come to 2 of 5"):
            await world.engine.upkeep.prune([tombstone], position=5)
        assert len(await world.facts("c-1")) == 5


async def test_metrics_are_the_same_live_rebuilt_and_restored(world: World, tmp_path: Path) -> None:
    async def figures(*, rebuilt: bool) -> object:
        engine, view = world.engine, metrics_view(world.engine)
        if rebuilt:
            return await engine.on_writer(rebuild_metrics, view, engine.log.following)
        return await engine.on_reader(read_metrics, view, engine.log.following)

    path = tmp_path / "a.jsonl.gz"
    async with world:
        await stopped(world, "c-1", "c-2", "c-3")
        await world.engine.start("counter", id="runs")
        before = await figures(rebuilt=False)
        await follow_metrics(world)
        await prune_all(world, path)
        assert await figures(rebuilt=False) == before
        await world.restart()
        for _ in range(2):
            assert await figures(rebuilt=True) == before
            assert await figures(rebuilt=False) == before
            await restore(world.engine, str(path))
            assert await figures(rebuilt=False) == before
        await world.engine.send("c-1", "add", 1, event_id="refused")
        after = await figures(rebuilt=False)
        assert after != before
        assert await figures(rebuilt=True) == after


async def follow_metrics(world: World) -> None:
    engine = world.engine
    await engine.attach(MetricsProjection(metrics_view(engine), engine.on_reader, engine.on_writer))


async def test_what_is_not_true_to_itself_is_not_thrown_away(world: World, tmp_path: Path) -> None:
    await world.open()
    try:
        await stopped(world, "c-1")
        datastore = world.engine.recorder.datastore  # type: ignore[attr-defined]
        with datastore.write() as connection:
            connection.execute("UPDATE instances SET context = '{}' WHERE id = 'c-1'")
        with pytest.raises(InvalidError, match="'c-1' is not what its facts say"):
            await prune_all(world, tmp_path / "a.jsonl.gz")
        assert not (tmp_path / "a.jsonl.gz").exists()
    finally:
        await world.engine.close()


async def test_a_torn_archive_is_read_as_far_as_it_goes(world: World, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    async with world:
        await stopped(world, "c-1")
        await prune_all(world, path)
        whole = path.read_bytes()
        path.write_bytes(whole + whole[: len(whole) // 2])
        lines = [line for line in read_archive(str(path)) if isinstance(line, ArchivedInstance)]
        assert lines[0].row["id"] == "c-1"
        assert await restore(world.engine, str(path)) == Restored(restored=1, torn=True)
        for torn in (whole[:20], b""):
            path.write_bytes(torn)
            assert await restore(world.engine, str(path)) == Restored(torn=True)
        path.write_bytes(b"junk")
        with pytest.raises(InvalidError, match="expected an archive"):
            await restore(world.engine, str(path))
        with pytest.raises(InvalidError, match="exists"):
            await prune_all(world, path)
        with pytest.raises(InvalidError, match=r"jsonl\.gz"):
            await prune_all(world, tmp_path / "a.zip")


async def test_a_family_stays_together_in_an_encrypted_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who belongs to whom is not read from what is encrypted."""
    monkeypatch.setenv(KEYS, f"{new_entry('key')} {new_entry(IDENTITIES)}")
    world = World(tmp_path / "store.db", PARENT, CHILD)
    async with world:
        await world.engine.start("parent", id="p")
        await world.settle()
        await world.restart(run_due=False)
        await world.engine.cancel("p")
        (begun, cancel) = await world.engine.effects("p")
        assert (begun.kind, begun.state, cancel.kind) == ("start", "done", "cancel")
        given_up = Changes(effects_ended=[("failed", "given up", cancel.effect_id)])
        await world.engine.on_writer(lambda: world.engine.recorder.insert_events([], changes=given_up))
        assert (await world.engine.status("p-1-0")).status == "active"
        assert (await prune_all(world, tmp_path / "a.jsonl.gz")).pruned == 0
