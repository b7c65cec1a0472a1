"""The metrics as they are kept: with the log in one file, never stale, and the same when they are rebuilt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statewright.adapters.sqlite.datastore import Datastore
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.adapters.sqlite.views import SQLiteMetricsView
from statewright.engine import Engine, LoggedFact, ManualClock
from statewright.engine.events import AnyFact
from statewright.projections.metrics import Metrics
from statewright.projections.metrics_view import MetricsFolder, MetricsProjection, read_metrics, rebuild_metrics
from statewright.statecharts.chart import Chart
from tests.projections.streams import logs, started

CHART = {
    "name": "approval",
    "context": {"amount": "int"},
    "initial": "draft",
    "states": {
        "draft": {"on": {"submit": "review"}},
        "review": {
            "on": {"approve": {"target": "done", "guard": "context.amount < 100"}, "back": "draft"},
            "after": {"1h": "draft"},
        },
        "done": {"type": "final"},
    },
}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[SQLiteInstanceRecorder]:
    recorder = SQLiteInstanceRecorder(Datastore(str(tmp_path / "store.db")))
    recorder.create_table()
    yield recorder
    recorder.datastore.close()


def following(log: list[LoggedFact]) -> Callable[[int, int], list[LoggedFact]]:
    return lambda position, limit: [entry for entry in log if entry.position > position][:limit]


def fold(folder: MetricsFolder, facts: list[LoggedFact]) -> None:
    if batch := folder.fold(facts):
        folder.save(batch)


def test_an_unserved_store_has_no_metrics_and_is_left_as_it_is(recorder: SQLiteInstanceRecorder) -> None:
    view = SQLiteMetricsView(recorder.datastore)
    with view.snapshot() as stored:
        assert (stored.position, stored.figures(), stored.runs(["a"])) == (0, {}, {})
    with recorder.datastore.read() as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema")]
    assert not [name for name in names if "metrics" in name]


def test_a_snapshot_sees_nothing_that_is_saved_meanwhile(recorder: SQLiteInstanceRecorder) -> None:
    view = SQLiteMetricsView(recorder.datastore)
    view.save(after=0, position=3, figures={}, runs={})
    with view.snapshot() as stored:
        view.save(after=3, position=5, figures={}, runs={})
        assert stored.position == 3
    with view.snapshot() as stored:
        assert stored.position == 5


def test_facts_are_never_folded_twice(recorder: SQLiteInstanceRecorder) -> None:
    view = SQLiteMetricsView(recorder.datastore)
    view.save(after=0, position=3, figures={}, runs={})
    with pytest.raises(IntegrityError, match="expected the metrics at position 0 of the log, but they are at 3"):
        view.save(after=0, position=4, figures={}, runs={})
    with view.snapshot() as stored:
        assert stored.position == 3


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(logs(), st.integers(1, 20), st.integers(0, 40))
def test_stored_read_and_rebuilt_figures_are_those_of_one_fold(
    recorder: SQLiteInstanceRecorder, log: list[LoggedFact], size: int, stored_facts: int
) -> None:
    """Batches of any size, each given twice, as after a failure; a reader ahead of what is stored; a rebuild."""
    whole = Metrics()
    whole.apply_all(entry.fact for entry in log)
    view = SQLiteMetricsView(recorder.datastore)
    view.clear()
    folder = MetricsFolder(view)
    assert folder.load() == 0
    for start in range(0, min(stored_facts, len(log)), size):
        batch = log[start : min(start + size, stored_facts)]
        fold(folder, batch)
        fold(folder, batch)
    assert read_metrics(view, following(log)) == whole.figures
    with view.snapshot() as stored:
        assert stored.position == (log[min(stored_facts, len(log)) - 1].position if log and stored_facts else 0)
    assert rebuild_metrics(view, following(log)) == whole.figures
    assert MetricsFolder(view).load() == (log[-1].position if log else 0)


def test_a_failed_save_is_done_again_from_what_is_stored(recorder: SQLiteInstanceRecorder) -> None:
    """The file is full for a while: nothing is written, nothing is counted twice afterwards."""
    log = [LoggedFact(position, fact) for position, fact in enumerate(many_starts(), 1)]
    view = SQLiteMetricsView(recorder.datastore)
    folder = MetricsFolder(view)
    fold(folder, log[:1])
    with recorder.datastore.write() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Exception, match="full"):
        fold(folder, log[1:])
    with view.snapshot() as stored:
        assert stored.position == 1
    with recorder.datastore.write() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    fold(folder, log[1:])
    with view.snapshot() as stored:
        assert stored.figures()["approval", "1"].started == len(log)


def many_starts() -> list[AnyFact]:
    return [started(instance_id=f"instance-{number:05}") for number in range(3_000)]


class Watched(MetricsProjection):
    """Tells when it has come to a position."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._moved = asyncio.Condition()

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        await super().process(facts)
        async with self._moved:
            self._moved.notify_all()

    async def reached(self, position: int) -> None:
        async with self._moved:
            while await self.position() < position:
                await self._moved.wait()


async def drive(engine: Engine, clock: ManualClock) -> None:
    """Some instances go some way; one ends, one is cancelled, one is refused, one waits for its timer."""
    for number in range(6):
        await engine.start("approval", {"amount": number * 50}, id=f"i-{number}")
        clock.advance(1)
    for number in range(5):
        await engine.send(f"i-{number}", "submit")
        clock.advance(2)
    for number in range(3):
        await engine.send(f"i-{number}", "approve")
    await engine.cancel("i-4")
    await engine.pause("i-5")


async def test_a_real_run_counted_live_read_and_rebuilt(tmp_path: Path) -> None:
    clock = ManualClock()
    url = f"sqlite:///{tmp_path}/store.db"
    async with Engine.open(url, charts=[Chart.from_tree(CHART)], clock=clock) as engine:
        view = SQLiteMetricsView(engine.recorder.datastore)  # type: ignore[attr-defined]
        projection = Watched(view, engine.on_reader, engine.on_writer)
        await engine.attach(projection)
        await drive(engine, clock)
        read = await engine.on_reader(read_metrics, view, engine.log.following)
        last = await engine.on_reader(engine.recorder.max_notification_id)
        async with asyncio.timeout(10):
            await projection.reached(last)
        with view.snapshot() as stored:
            assert stored.figures() == read
        rebuilt = await engine.on_writer(rebuild_metrics, view, engine.log.following)
    assert rebuilt == read
    figures = read["approval", "1"]
    assert (figures.started, figures.active, figures.paused) == (6, 2, 1)
    assert (figures.completed, figures.cancelled, figures.refused) == (2, 1, 1)
    assert {name: state.now for name, state in figures.states.items()} == {"draft": 1, "review": 2, "done": 0}
    assert figures.states["done"].entered == 2
