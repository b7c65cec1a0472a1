"""The recorder contract: facts, and that all rows of a transaction are durable or none is."""

from __future__ import annotations

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking

from statewright.engine.recorder import Changes, InstanceFilter, InstanceRecorder
from tests.contracts.recorders import Harness
from tests.contracts.rows import effect, event, inbox, instance, timer

ALL_AT_ONCE = Changes(
    inbox=[inbox("e-1")],
    instances=[instance()],
    timers_set=[timer()],
    effects_requested=[effect()],
)


def is_empty(recorder: InstanceRecorder) -> bool:
    rows = (
        recorder.select_events("a"),
        recorder.select_inbox("a", 10),
        recorder.select_instances(InstanceFilter()),
        recorder.select_timers("a"),
        recorder.select_effects("a"),
    )
    return not any(rows)


def test_facts_and_rows_are_there_once_the_call_returns(harness: Harness, recorder: InstanceRecorder) -> None:
    positions = recorder.insert_events([event("a", 1), event("b", 1)], changes=ALL_AT_ONCE)
    assert positions == [1, 2]
    for reader in (recorder, harness.open()):
        assert reader.select_events("a") == [event("a", 1)]
        assert reader.find_inbox("a", "", "e-1") == inbox("e-1")
        assert reader.select_instance("a") == instance()
        assert reader.select_timers("a") == [timer()]
        assert reader.select_effects("a") == [effect()]


@pytest.mark.parametrize(
    "state",
    [
        b"{}",
        b"",
        '{"name":"Zoë \U0001f408"}'.encode(),
        b'{"nul":"\\u0000","quote":"\\"","backslash":"\\\\"}',
        b"a NUL \x00 inside",
        bytes(range(256)),
        b"\xe2\x82",
    ],
)
def test_a_state_comes_back_to_the_byte(recorder: InstanceRecorder, state: bytes) -> None:
    recorder.insert_events([event("a", 1, b"before"), event("a", 2, state), event("a", 3, b"\xac after")])
    assert [stored.state for stored in recorder.select_events("a")] == [b"before", state, b"\xac after"]
    assert recorder.select_notifications(2, 1)[0].state == state


def test_text_comes_back_as_it_was(recorder: InstanceRecorder) -> None:
    source, event_id = 'urn:x?a="1"&b=\\', "Zoë \U0001f408 \x01\n"
    written = instance(context='{"text":"\\u0000 \\" \\\\ \U0001f408"}', error="line 1\nline 2")
    recorder.insert_events([event()], changes=Changes(inbox=[inbox(event_id, source=source)], instances=[written]))
    assert recorder.find_inbox("a", source, event_id) == inbox(event_id, source=source)
    assert recorder.select_instance("a") == written


def test_integers_keep_all_their_64_bits(recorder: InstanceRecorder) -> None:
    far = 2**63 - 1
    recorder.insert_events([event()], changes=Changes(timers_set=[timer(due_at=far)]))
    assert recorder.select_timers("a") == [timer(due_at=far)]


@pytest.mark.parametrize(
    "changes",
    [
        Changes(inbox=[inbox("e-2", sequence=2), inbox("e-1", sequence=2)]),
        Changes(effects_requested=[effect(0, sequence=2), effect(0, sequence=1)]),
    ],
    ids=["an identity that exists", "an effect that exists"],
)
def test_a_row_that_exists_leaves_nothing_of_its_transaction(recorder: InstanceRecorder, changes: Changes) -> None:
    recorder.insert_events([event("a", 1)], changes=ALL_AT_ONCE)
    changes.instances = [instance(status="completed", sequence=2)]
    changes.timers_cleared = [("a", "reminder")]
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 2), event("b", 1)], changes=changes)
    assert recorder.select_events("a") == [event("a", 1)]
    assert recorder.select_events("b") == []
    assert recorder.select_inbox("a", 10) == [inbox("e-1")]
    assert recorder.select_instance("a") == instance()
    assert recorder.select_timers("a") == [timer()]
    assert recorder.select_effects("a") == [effect()]


def test_a_sequence_that_exists_is_a_conflict(harness: Harness, recorder: InstanceRecorder) -> None:
    recorder.insert_events([event("a", 1)])
    for second in (recorder, harness.open()):
        with pytest.raises(IntegrityError):
            second.insert_events([event("a", 1, b'{"other":1}')], changes=Changes(instances=[instance(sequence=9)]))
    assert recorder.select_events("a") == [event("a", 1)]
    assert recorder.select_instance("a") is None


def test_two_facts_of_one_sequence_in_one_transaction_are_a_conflict(recorder: InstanceRecorder) -> None:
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 1), event("a", 1)], changes=ALL_AT_ONCE)
    assert is_empty(recorder)


def test_after_a_conflict_the_next_transaction_goes_through(recorder: InstanceRecorder) -> None:
    recorder.insert_events([event("a", 1)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 1), event("a", 2)])
    recorder.insert_events([event("a", 2)])
    assert [stored.originator_version for stored in recorder.select_events("a")] == [1, 2]


def test_positions_grow_also_when_two_recorders_write_in_turn(harness: Harness, recorder: InstanceRecorder) -> None:
    other = harness.open()
    positions: list[int] = []
    for sequence in range(1, 7):
        writer = recorder if sequence % 2 else other
        positions += writer.insert_events([event("a", sequence)]) or []
    assert positions == sorted(set(positions))
    assert [entry.id for entry in recorder.select_notifications(None, 10)] == positions


def test_changes_without_facts_are_a_transaction_too(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(timers_set=[timer()]))
    recorder.insert_events([], changes=Changes(timers_cleared=[("a", "reminder"), ("a", "unknown")]))
    assert recorder.select_timers("a") == []
    assert recorder.max_notification_id() is None


def test_a_large_batch_keeps_its_order(recorder: InstanceRecorder) -> None:
    events = [event(f"i-{number % 100}", number // 100 + 1, b'{"n":%d}' % number) for number in range(2_000)]
    rows = [
        inbox(f"e-{number}", instance_id=f"i-{number % 100}", sequence=number // 100 + 1) for number in range(2_000)
    ]
    assert recorder.insert_events(events, changes=Changes(inbox=rows)) == list(range(1, 2_001))
    notified = recorder.select_notifications(None, 5_000)
    assert [StoredEvent(n.originator_id, n.originator_version, n.topic, n.state) for n in notified] == events
    assert list(recorder.select_inbox("i-7", 100)) == [row for row in reversed(rows) if row.instance_id == "i-7"]


def test_events_of_an_instance_are_read_in_part_and_backwards(recorder: InstanceRecorder) -> None:
    recorder.insert_events([event("a", sequence) for sequence in range(1, 6)] + [event("b", 1)])

    def read(**bounds: int | bool) -> list[int]:
        return [stored.originator_version for stored in recorder.select_events("a", **bounds)]  # type: ignore[arg-type]

    assert read() == [1, 2, 3, 4, 5]
    assert read(gt=2) == [3, 4, 5]
    assert read(gt=1, lte=3) == [2, 3]
    assert read(desc=True, limit=2) == [5, 4]
    assert read(lte=4, desc=True, limit=1) == [4]
    assert recorder.select_events("unknown") == []


def test_a_reader_sees_nothing_of_an_open_transaction(harness: Harness, recorder: InstanceRecorder) -> None:
    """And no follower passes it: once the transaction is committed, its facts come after all that was seen."""
    recorder.insert_events([event("a", 1)])
    reader = harness.open()
    with harness.uncommitted(recorder, [event("a", 2), event("b", 1)], ALL_AT_ONCE):
        assert reader.select_events("a") == [event("a", 1)]
        assert reader.select_instance("a") is None
        assert reader.select_timers("a") == []
        seen = [entry.id for entry in reader.select_notifications(None, 10)]
        assert reader.max_notification_id() == seen[-1]
    after = [entry.id for entry in reader.select_notifications(seen[-1], 10, inclusive_of_start=False)]
    assert len(after) == 2
    assert min(after) > max(seen)
    assert reader.select_instance("a") == instance()


def test_a_position_is_tracked_with_the_facts_or_not_at_all(recorder: InstanceRecorder) -> None:
    recorder.insert_events([event("a", 1)], tracking=Tracking("upstream", 5))
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 2)], changes=ALL_AT_ONCE, tracking=Tracking("upstream", 5))
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 1)], tracking=Tracking("upstream", 6))
    assert recorder.max_tracking_id("upstream") == 5
    assert recorder.select_events("a") == [event("a", 1)]
    assert recorder.select_inbox("a", 1) == []
    recorder.insert_tracking(Tracking("upstream", 7))
    assert recorder.max_tracking_id("upstream") == 7
    assert recorder.max_tracking_id("unknown") is None
