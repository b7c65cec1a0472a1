"""The store in memory: what a user's tests rely on."""

from __future__ import annotations

import pytest
from eventsourcing.persistence import DataError, IntegrityError, StoredEvent

from statewright.adapters.memory.store import MemoryStore
from statewright.adapters.memory.views import MemoryMetricsView
from statewright.engine import Engine, ManualClock
from statewright.engine.errors import UnavailableError
from statewright.engine.recorder import Changes
from statewright.engine.verify import verify_log
from statewright.projections.metrics import Figures
from statewright.projections.metrics_view import MetricsProjection, read_metrics, rebuild_metrics
from tests.contracts.rows import inbox
from tests.engine.charts import COUNTER
from tests.engine.worlds import until


async def test_what_is_recorded_outlives_the_engine() -> None:
    store = MemoryStore()
    for number in range(3):
        async with Engine.open(store, charts=[COUNTER], clock=ManualClock()) as engine:
            await engine.start("counter", id="c")
            await engine.send("c", "add", number, event_id=f"e-{number}")
            assert (await engine.send("c", "add", number, event_id=f"e-{number}")).kind == "duplicate"
            assert (await engine.replay("c")).instance.context["seen"] == list(range(number + 1))
            assert verify_log(engine.log).differences == []


async def test_snapshots_outlive_the_engine_too() -> None:
    store = MemoryStore()
    async with Engine.open(store, charts=[COUNTER]) as engine:
        await engine.start("counter", id="c")
        for number in range(120):
            await engine.send("c", "add", number)
    async with Engine.open(store, charts=[COUNTER]) as engine:
        assert engine.log._newest_snapshot("c") is not None
        assert (await engine.send("c", "add", 1)).sequence == 122
        assert verify_log(engine.log).differences == []


async def test_one_engine_owns_it_at_a_time() -> None:
    store = MemoryStore()
    async with Engine.open(store, charts=[COUNTER]):
        with pytest.raises(UnavailableError, match="is owned by another engine of this process"):
            await Engine.open(store, charts=[COUNTER]).__aenter__()


async def test_two_stores_have_nothing_in_common() -> None:
    async with Engine.open(MemoryStore(), charts=[COUNTER]) as one, Engine.open(MemoryStore()) as other:
        await one.start("counter", id="c")
        assert list(await other.list()) == []


def test_what_a_database_refuses_is_refused_with_nothing_written() -> None:
    recorder = MemoryStore().database.recorder
    for wrong in (inbox("a\0b"), inbox()._replace(digest=b"short")):
        with pytest.raises(DataError):
            recorder.insert_events([], changes=Changes(inbox=[inbox("before"), wrong]))
    assert recorder.select_inbox("a", 10) == []


async def test_the_metrics_follow_and_are_what_a_rebuild_gives() -> None:
    view = MemoryMetricsView()
    async with Engine.open(MemoryStore(), charts=[COUNTER], clock=ManualClock()) as engine:
        await engine.attach(MetricsProjection(view, engine.on_reader, engine.on_writer))
        await engine.start("counter", id="c")
        await engine.send("c", "add", 1)
        await until(lambda: view.position == 2, "the metrics to follow")
        followed = read_metrics(view, engine.log.following)
        assert followed["counter", COUNTER.version].transitions == 1
        assert rebuild_metrics(view, engine.log.following) == followed


def test_a_view_takes_only_what_follows_what_it_has() -> None:
    view = MemoryMetricsView()
    view.save(after=0, position=3, figures={("d", "1"): Figures(started=1)}, runs={})
    with pytest.raises(IntegrityError, match="expected the metrics at position 0 of the log, but they are at 3"):
        view.save(after=0, position=5, figures={}, runs={})
    with view.snapshot() as stored:
        assert (stored.position, stored.figures()) == (3, {("d", "1"): Figures(started=1)})


async def test_what_is_pruned_leaves_no_snapshot() -> None:
    store = MemoryStore()
    async with Engine.open(store, charts=[COUNTER]) as engine:
        await engine.start("counter", id="c")
        for number in range(120):
            await engine.send("c", "add", number)
        await engine.cancel("c")
        assert list(store.database.snapshots.select_events("c")) != []
        tombstone = StoredEvent("c", (await engine.status("c")).sequence + 1, "instance_pruned", b"{}")
        assert list(store.database.recorder.prune([tombstone])) == ["c"]
        assert list(store.database.snapshots.select_events("c")) == []
