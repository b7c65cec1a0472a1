"""The recorder contract: timers and effects are found by the partitions of their instances."""

from __future__ import annotations

import pytest

from statewright.engine.recorder import Changes, InstanceRecorder
from tests.contracts.recorders import Harness
from tests.contracts.rows import effect, event, timer


def test_timers_of_some_partitions(recorder: InstanceRecorder) -> None:
    rows = [timer(f"t-{number}", 10 + number, partition=number) for number in range(4)]
    recorder.insert_events([], changes=Changes(timers_set=rows))
    assert list(recorder.due_timers(99, 10, partitions=[3, 1])) == [rows[1], rows[3]]
    assert list(recorder.due_timers(99, 1, partitions={1, 3})) == [rows[1]]
    assert list(recorder.due_timers(11, 10, partitions=[3, 1])) == [rows[1]]
    assert list(recorder.due_timers(99, 10, partitions=())) == []
    assert list(recorder.due_timers(99, 10, partitions=None)) == rows
    assert recorder.next_timer_at(partitions=[2, 3]) == 12
    assert recorder.next_timer_at(partitions=[]) is None
    assert recorder.next_timer_at(partitions=[9]) is None


def test_effects_of_some_partitions(recorder: InstanceRecorder) -> None:
    rows = [effect(number, partition=number, due_at=10 + number) for number in range(4)]
    recorder.insert_events([], changes=Changes(effects_requested=rows))

    def claim(*partitions: int) -> list[str]:
        claimed = recorder.claim_effects(99, 10, names=["notify"], kinds=(), lease_ns=5, partitions=partitions)
        return [row.effect_id for row in claimed]

    assert recorder.next_effect_at(names=["notify"], kinds=(), partitions=[3, 2]) == 12
    assert recorder.next_effect_at(names=["notify"], kinds=(), partitions=[]) is None
    assert claim() == []
    assert claim(2, 3) == ["a-1-2", "a-1-3"]
    assert recorder.next_effect_at(names=["notify"], kinds=(), partitions=[3, 0]) == 10
    assert claim(3, 0) == ["a-1-0"]
    assert recorder.release_effects(partitions=[2, 1]) == 1
    assert recorder.release_effects(partitions=[]) == 0
    assert [row.state for row in recorder.select_effects("a")] == ["running", "pending", "pending", "running"]


def test_the_limit_is_of_the_earliest_among_these_partitions(recorder: InstanceRecorder) -> None:
    rows = [effect(number, partition=number % 2, due_at=100 - number) for number in range(10)]
    recorder.insert_events([], changes=Changes(effects_requested=rows))
    claimed = recorder.claim_effects(200, 3, names=["notify"], kinds=(), lease_ns=5, partitions=[0])
    assert [row.effect_id for row in claimed] == ["a-1-4", "a-1-6", "a-1-8"]


@pytest.mark.parametrize("seen_first", [True, False])
def test_no_follower_passes_a_position_that_is_not_committed(harness: Harness, seen_first: bool) -> None:
    """While one transaction is open, another writer's facts either wait for it or come before what it will show."""
    if not hasattr(harness, "url"):
        pytest.skip("one writer at a time: nobody can write beside an open transaction")
    first, second, follower = harness.open(), harness.open(), harness.open()
    if seen_first:
        first.insert_events([event("z", 1)])
    from threading import Thread

    other = Thread(target=lambda: second.insert_events([event("b", 1)]))
    with harness.uncommitted(first, [event("a", 1), event("a", 2)], Changes()):
        other.start()
        other.join(0.3)
        seen = [entry.id for entry in follower.select_notifications(None, 10)]
        assert len(seen) == int(seen_first)
        assert other.is_alive()
    other.join()
    position = seen[-1] if seen else 0
    rest = follower.select_notifications(position, 10, inclusive_of_start=False)
    assert [(entry.originator_id, entry.originator_version) for entry in rest] == [("a", 1), ("a", 2), ("b", 1)]
