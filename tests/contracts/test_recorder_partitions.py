"""The recorder contract: timers and effects are found by the partitions of their instances."""

from __future__ import annotations

from statewright.engine.recorder import Changes, InstanceRecorder
from tests.contracts.rows import effect, timer


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
