"""Parking and pruning while another worker writes, which a SQLite file has no room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent

from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
from statewright.engine.recorder import Changes, InstanceRecorder
from tests.contracts.recorders import PostgresHarness
from tests.contracts.rows import effect, event, inbox, instance, parked, timer
from tests.postgres_server import shared_server


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[PostgresHarness]:
    harness = PostgresHarness(tmp_path)
    yield harness
    harness.close()


def ended(recorder: InstanceRecorder, instance_id: str) -> None:
    row = instance(instance_id, status="completed", ended_at=50)
    recorder.insert_events([event(instance_id)], changes=Changes(instances=[row]))


def tombstone(instance_id: str, sequence: int = 2) -> StoredEvent:
    return StoredEvent(instance_id, sequence, "instance_pruned", b"{}")


def begun(work: Callable[[], object], *, waiting: int = 1) -> Thread:
    """A thread that does `work`, and is by now one of so many that wait for a lock in the database."""
    thread = Thread(target=work)
    thread.start()
    count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while shared_server().execute(count) < [(waiting,)]:
        assert thread.is_alive(), "expected it to wait for a lock, but it has ended"
    return thread


def test_what_is_just_written_to_is_waited_for_and_left(harness: PostgresHarness) -> None:
    writer, pruner = harness.open(), harness.open()
    for instance_id in ("a", "b"):
        ended(pruner, instance_id)
    pruned: list[str] = []
    again = instance("a", status="completed", sequence=2, ended_at=50)
    with harness.uncommitted(writer, [event("a", 2)], Changes(instances=[again])):
        thread = begun(lambda: pruned.extend(pruner.prune([tombstone("b"), tombstone("a")])))
    thread.join()
    assert pruned == ["b"]
    assert writer.select_instance("a") == again
    assert [one.originator_version for one in writer.located_events("a")] == [1, 2]


def test_who_writes_to_what_is_just_pruned_records_nothing(harness: PostgresHarness) -> None:
    """The transaction that prunes is held open by a lock on the table that it writes last."""
    writer, pruner, holder = harness.open(), harness.open(), harness.open()
    assert isinstance(holder, PostgresInstanceRecorder)
    ended(writer, "a")
    refused: list[IntegrityError] = []

    def write() -> None:
        changes = Changes(
            inbox=[inbox("late", sequence=2)],
            instances=[instance("a", status="completed", sequence=2, ended_at=50)],
            timers_set=[timer()],
            effects_requested=[effect()],
        )
        try:
            writer.insert_events([event("a", 2)], changes=changes)
        except IntegrityError as error:
            refused.append(error)

    with holder.datastore.write() as cursor:
        cursor.execute("LOCK TABLE stored_events IN SHARE MODE")
        cursor.execute("SELECT 1")
        cursor.fetchall()
        pruning = begun(lambda: pruner.prune([tombstone("a")]))
        writing = begun(write, waiting=2)
    pruning.join()
    writing.join()
    assert len(refused) == 1
    assert [one.topic for one in writer.located_events("a")] == ["instance_pruned"]
    left = (writer.select_instance("a"), *writer.select_inbox("a", 9), *writer.select_timers("a"))
    assert (*left, *writer.select_effects("a")) == (None,)


def test_a_tombstone_waits_for_positions_that_are_not_committed(harness: PostgresHarness) -> None:
    writer, pruner, follower = harness.open(), harness.open(), harness.open()
    ended(pruner, "a")
    with harness.uncommitted(writer, [event("b")], Changes()):
        thread = begun(lambda: pruner.prune([tombstone("a")]))
        assert [entry.originator_id for entry in follower.select_notifications(None, 9)] == ["a"]
    thread.join()
    assert [entry.originator_id for entry in follower.select_notifications(None, 9)] == ["b", "a"]


def test_two_that_prune_the_same_prune_it_once(harness: PostgresHarness) -> None:
    recorders = [harness.open(), harness.open()]
    names = [f"i-{n}" for n in range(100)]
    for name in names:
        ended(recorders[0], name)
    pruned: list[str] = []
    orders = (names, names[::-1])

    def prune(number: int) -> None:
        for start in range(0, 100, 20):
            batch = orders[number][start : start + 20]
            pruned.extend(recorders[number].prune([tombstone(name) for name in batch]))

    threads = [Thread(target=prune, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pruned) == sorted(names)
    assert [entry.topic for entry in recorders[0].select_notifications(None, 1_000)] == ["instance_pruned"] * 100


def test_what_is_retried_while_its_instance_is_cancelled_is_not_performed(harness: PostgresHarness) -> None:
    canceller, operator = harness.open(), harness.open()
    operator.insert_events([event()], changes=Changes(instances=[instance()], effects_requested=[effect()]))
    operator.park(parked("p-1"), effect_id="a-1-0")
    cancelled = Changes(instances=[instance(status="cancelled", sequence=2, ended_at=50)], instances_closed=["a"])
    with harness.uncommitted(canceller, [event("a", 2)], cancelled):
        thread = begun(lambda: operator.unpark("p-1", effect_id="a-1-0"))
    thread.join()
    assert [row.state for row in operator.select_effects("a")] == ["cancelled"]


def test_a_consistent_read_survives_its_error(harness: PostgresHarness) -> None:
    recorder = harness.open()
    ended(recorder, "a")

    def fail() -> None:
        with recorder.consistent():
            assert recorder.select_instance("a") is not None
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    recorder.insert_events([event("b")])
    assert len(recorder.select_notifications(None, 9)) == 2
