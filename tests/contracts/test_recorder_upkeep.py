"""What is parked comes back whole; what is pruned leaves a tombstone, and comes back where it was."""

from __future__ import annotations

from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking

from statewright.engine.recorder import Changes, EndedFilter, InstanceRecorder
from tests.contracts.recorders import Harness
from tests.contracts.rows import effect, event, inbox, instance, parked, step, timer

EVER = 2**62


def tombstone(instance_id: str = "a", sequence: int = 3) -> StoredEvent:
    return StoredEvent(instance_id, sequence, "instance_pruned", b'{"type":"instance_pruned"}')


def ended(recorder: InstanceRecorder, instance_id: str = "a", **fields: Any) -> None:
    """An instance with two facts, an identity, an effect and a step that are done."""
    row = instance(instance_id, **{"status": "completed", "sequence": 2, "ended_at": 50, **fields})
    effects = [effect(instance_id=instance_id)._replace(state="done")]
    changes = Changes(inbox=[inbox(instance_id=instance_id)], instances=[row], effects_requested=effects)
    changes.steps.append(step(status="completed", instance_id=instance_id, started_at=5, ended_at=9))
    recorder.insert_events([event(instance_id, 1), event(instance_id, 2)], changes=changes)


def selected(recorder: InstanceRecorder, **fields: Any) -> list[str]:
    return [
        row.id for row in recorder.select_ended(EndedFilter(**{"status": "completed", "ended_before": EVER, **fields}))
    ]


def test_a_timer_is_parked_instead_of_set_and_set_again(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(timers_set=[timer("one"), timer("two")]))
    recorder.park(parked("p-1"), timer=("a", "one"))
    assert list(recorder.select_timers("a")) == [timer("two")]
    assert recorder.find_parked("p-1") == parked("p-1")
    assert recorder.unpark("p-1", timer=timer("one"))
    assert recorder.find_parked("p-1") is None
    assert sorted(recorder.select_timers("a")) == [timer("one"), timer("two")]


def test_a_timer_set_meanwhile_is_kept(recorder: InstanceRecorder) -> None:
    recorder.park(parked("p-1"))
    recorder.insert_events([], changes=Changes(timers_set=[timer("one", 99)]))
    assert recorder.unpark("p-1", timer=timer("one", 20))
    assert list(recorder.select_timers("a")) == [timer("one", 99)]


def test_what_is_not_parked_brings_nothing_back(recorder: InstanceRecorder) -> None:
    assert not recorder.unpark("p-1", timer=timer("one"))
    assert recorder.next_timer_at() is None


def test_an_effect_is_parked_and_begins_anew(recorder: InstanceRecorder) -> None:
    recorder.insert_events([event()], changes=Changes(instances=[instance()], effects_requested=[effect()]))
    (claimed,) = recorder.claim_effects(200, 1, names=["notify"], kinds=[], lease_ns=1_000)
    recorder.park(parked("p-1"), effect_id=claimed.effect_id)
    (row,) = recorder.select_effects("a")
    assert (row.state, row.error) == ("parked", parked("p-1").reason)
    assert recorder.next_effect_at(names=["notify"], kinds=[]) is None
    assert recorder.release_effects() == 0
    assert recorder.unpark("p-1", effect_id=claimed.effect_id)
    (again,) = recorder.claim_effects(1, 1, names=["notify"], kinds=[], lease_ns=1_000)
    assert (again.effect_id, again.attempt) == (claimed.effect_id, 1)


def test_an_effect_that_has_ended_meanwhile_is_not_parked(recorder: InstanceRecorder) -> None:
    changes = Changes(instances=[instance()], effects_requested=[effect()], effects_ended=[("done", "", "a-1-0")])
    recorder.insert_events([event()], changes=changes)
    recorder.park(parked("p-1"), effect_id="a-1-0")
    assert [row.state for row in recorder.select_effects("a")] == ["done"]


def test_an_effect_of_an_instance_cancelled_meanwhile_is_not_performed(recorder: InstanceRecorder) -> None:
    asked = [effect(0), effect(1, kind="done", name="done.invoke.x")]
    recorder.insert_events([event()], changes=Changes(instances=[instance()], effects_requested=asked))
    for index, row in enumerate(asked):
        recorder.park(parked(f"p-{index}"), effect_id=row.effect_id)
    recorder.insert_events([], changes=Changes(instances=[instance(status="cancelled")], instances_closed=["a"]))
    for index, row in enumerate(asked):
        recorder.unpark(f"p-{index}", effect_id=row.effect_id)
    assert [row.state for row in recorder.select_effects("a")] == ["cancelled", "pending"]


def test_a_dropped_effect_stays_as_that(recorder: InstanceRecorder) -> None:
    recorder.insert_events([event()], changes=Changes(instances=[instance()], effects_requested=[effect()]))
    recorder.park(parked("p-1"), effect_id="a-1-0")
    recorder.unpark("p-1", effect_id="a-1-0", effect_state="dropped")
    assert [row.state for row in recorder.select_effects("a")] == ["dropped"]


def test_a_consistent_read_sees_one_moment(harness: Harness, recorder: InstanceRecorder) -> None:
    recorder.insert_events([event()], changes=Changes(instances=[instance()]))
    reader = harness.open()
    with reader.consistent():
        recorder.insert_events([event("a", 2)], changes=Changes(instances=[instance(sequence=2)]))
        row = reader.select_instance("a")
        assert row is not None
        assert row.sequence == 1
        assert len(reader.located_events("a")) == 1
    assert len(reader.located_events("a")) == 2


def test_positions_are_told_by_name(recorder: InstanceRecorder) -> None:
    assert recorder.tracked_positions() == {}
    recorder.insert_tracking(Tracking("metrics", 7))
    recorder.insert_tracking(Tracking("other", 3))
    assert recorder.tracked_positions() == {"metrics": 7, "other": 3}


def test_what_has_ended_before_then_is_selected_in_pages(recorder: InstanceRecorder) -> None:
    for instance_id in ("a", "b", "c"):
        ended(recorder, instance_id)
    ended(recorder, "late", ended_at=70)
    ended(recorder, "other", definition="order")
    ended(recorder, "failed", status="failed")
    recorder.insert_events([event("runs")], changes=Changes(instances=[instance("runs")]))
    assert selected(recorder, ended_before=70) == ["a", "b", "c", "other"]
    assert selected(recorder, ended_before=70, definition="approval", limit=2) == ["a", "b"]
    assert selected(recorder, after="b") == ["c", "late", "other"]
    assert selected(recorder, status="failed") == ["failed"]


@pytest.mark.parametrize("state", ["pending", "running", "parked"])
def test_what_is_still_to_be_done_keeps_an_instance(recorder: InstanceRecorder, state: str) -> None:
    ended(recorder)
    open_effect = effect(1)._replace(state=state)
    recorder.insert_events([], changes=Changes(effects_requested=[open_effect]))
    assert selected(recorder) == []


def test_relatives_keep_each_other(recorder: InstanceRecorder) -> None:
    """While the parent runs its child stays, and while a child runs its parent does."""
    begun = effect(5, kind="start", name="x")._replace(state="done", data='{"to":"a-1-5"}')
    ended(recorder, "a")
    ended(recorder, "a-1-5", parent="a")
    recorder.insert_events([], changes=Changes(effects_requested=[begun]))

    def set_status(instance_id: str, **fields: Any) -> None:
        row = instance(instance_id, **{"status": "completed", "sequence": 2, "ended_at": 50, **fields})
        recorder.insert_events([], changes=Changes(instances=[row]))

    assert selected(recorder) == ["a", "a-1-5"]
    set_status("a-1-5", status="active", ended_at=None)
    assert selected(recorder) == []
    set_status("a-1-5")
    recorder.insert_events([event("p")], changes=Changes(instances=[instance("p")]))
    child = instance("c", status="completed", ended_at=50, parent="p")
    recorder.insert_events([event("c")], changes=Changes(instances=[child]))
    assert selected(recorder) == ["a", "a-1-5"]


def test_a_tombstone_takes_the_place_of_all(recorder: InstanceRecorder) -> None:
    ended(recorder, "a")
    ended(recorder, "b")
    last = recorder.max_notification_id()
    assert list(recorder.prune([tombstone("a")])) == ["a"]
    assert recorder.select_instance("a") is None
    assert [*recorder.select_inbox("a", 9), *recorder.select_effects("a"), *recorder.select_timers("a")] == []
    assert list(recorder.select_steps("a")) == []
    assert len(recorder.select_steps("b")) == 1
    (left,) = recorder.located_events("a")
    assert (left.id, left.originator_version, left.topic) == (last + 1, 3, "instance_pruned")
    assert len(recorder.located_events("b")) == 2
    assert recorder.insert_events([event("c")], changes=Changes()) == [last + 2]


def test_what_has_moved_on_or_runs_is_left(recorder: InstanceRecorder) -> None:
    ended(recorder, "a")
    recorder.insert_events([event("runs")], changes=Changes(instances=[instance("runs")]))
    assert list(recorder.prune([tombstone("a", 2), tombstone("runs", 2), tombstone("nobody", 1)])) == []
    assert len(recorder.located_events("a")) == 2


def test_who_has_read_it_before_can_no_longer_write(recorder: InstanceRecorder) -> None:
    ended(recorder)
    recorder.prune([tombstone()])
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 3)], changes=Changes(inbox=[inbox("e-9", sequence=3)]))
    assert recorder.find_inbox("a", "", "e-9") is None


def test_what_is_restored_is_what_was_pruned(recorder: InstanceRecorder) -> None:
    ended(recorder, "a")
    ended(recorder, "b")
    row, events = recorder.select_instance("a"), recorder.located_events("a")
    identities, effects = recorder.select_inbox("a", 9), recorder.select_effects("a")
    steps = recorder.select_steps("a")
    assert row is not None
    assert len(steps) == 1
    recorder.prune([tombstone("a")])
    recorder.restore(row, events, identities, effects, steps)
    assert recorder.select_instance("a") == row
    assert list(recorder.select_steps("a")) == list(steps)
    assert list(recorder.located_events("a")) == list(events)
    assert list(recorder.select_inbox("a", 9)) == list(identities)
    assert list(recorder.select_effects("a")) == list(effects)
    with pytest.raises(IntegrityError, match="'a'"):
        recorder.restore(row, events, identities, effects)
    recorder.prune([tombstone("a")])
    with pytest.raises(IntegrityError, match="'a'"):
        recorder.restore(row._replace(sequence=1), events[:1], identities, effects)
    assert [one.topic for one in recorder.located_events("a")] == ["instance_pruned"]
