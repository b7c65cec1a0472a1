"""The recorder contract: the inbox, instances and their filters, timers, definitions, parked messages."""

from __future__ import annotations

import pytest
from eventsourcing.persistence import IntegrityError

from statewright.engine.recorder import (
    PARTITIONS_DEFAULT,
    Changes,
    DefinitionRow,
    InstanceFilter,
    InstanceRecorder,
    InstanceRow,
)
from tests.contracts.recorders import Harness
from tests.contracts.rows import inbox, instance, parked, timer


def test_an_identity_is_of_one_instance_and_one_source(recorder: InstanceRecorder) -> None:
    rows = [inbox("e-1"), inbox("e-1", source="client"), inbox("e-1", instance_id="b")]
    recorder.insert_events([], changes=Changes(inbox=rows))
    assert [recorder.find_inbox(row.instance_id, row.source, row.event_id) for row in rows] == rows
    assert recorder.find_inbox("b", "client", "e-1") is None
    for row in rows:
        with pytest.raises(IntegrityError):
            recorder.insert_events([], changes=Changes(inbox=[row._replace(sequence=2)]))


def test_the_newest_identities_come_first(recorder: InstanceRecorder) -> None:
    # Ids in another order than sequences, so that it is the sequence that counts.
    rows = [inbox(f"e-{9 - sequence}", sequence=sequence) for sequence in range(1, 6)]
    recorder.insert_events([], changes=Changes(inbox=[*rows, inbox("x", instance_id="ab", sequence=99)]))
    assert list(recorder.select_inbox("a", 3)) == [rows[4], rows[3], rows[2]]
    assert recorder.select_inbox("unknown", 3) == []


def test_an_instance_has_one_row_which_the_last_write_decides(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(instances=[instance()]))
    ended = instance(status="failed", configuration="[]", context="{}", sequence=4, ended_at=14, error="boom")
    recorder.insert_events([], changes=Changes(instances=[ended]))
    assert recorder.select_instance("a") == ended
    assert recorder.select_instances(InstanceFilter()) == [ended]
    assert recorder.select_instance("b") is None


def test_an_instance_that_has_ended_may_go_on_with_another_definition(recorder: InstanceRecorder) -> None:
    ended = instance(status="failed", sequence=4, ended_at=14, error="boom")
    recorder.insert_events([], changes=Changes(instances=[instance(), instance("b")]))
    recorder.insert_events([], changes=Changes(instances=[ended]))
    going_on = instance(sequence=5, version="1+d3r1v3d0", digest="1" * 64)
    recorder.insert_events([], changes=Changes(instances=[going_on]))
    assert recorder.select_instance("a") == going_on
    assert recorder.select_instances(InstanceFilter(status="active")) == [going_on, instance("b")]
    assert recorder.select_instances(InstanceFilter(status="failed")) == []


@pytest.fixture
def many(recorder: InstanceRecorder) -> dict[str, InstanceRow]:
    """Ten instances i-0 to i-9, written in another order than that of their ids."""
    rows = {
        f"i-{number}": instance(
            f"i-{number}",
            definition="approval" if number % 2 else "order",
            status="active" if number < 6 else "completed",
            configuration='["review","review.first"]' if number % 3 == 0 else '["review.first.x"]',
        )
        for number in (5, 3, 8, 0, 9, 1, 7, 2, 6, 4)
    }
    recorder.insert_events([], changes=Changes(instances=list(rows.values())))
    return rows


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (InstanceFilter(), "0123456789"),
        (InstanceFilter(definition="approval"), "13579"),
        (InstanceFilter(status="completed"), "6789"),
        (InstanceFilter(state="review.first"), "0369"),
        (InstanceFilter(state="first"), ""),
        (InstanceFilter(definition="order", status="active", state="review"), "0"),
        (InstanceFilter(definition="unknown"), ""),
        (InstanceFilter(limit=3), "012"),
        (InstanceFilter(limit=3, after="i-2"), "345"),
        (InstanceFilter(status="active", after="i-3", limit=9), "45"),
        (InstanceFilter(after="i-9"), ""),
        (InstanceFilter(limit=0), ""),
    ],
)
def test_a_filter_takes_what_fits_it_wholly(
    recorder: InstanceRecorder, many: dict[str, InstanceRow], where: InstanceFilter, expected: str
) -> None:
    assert list(recorder.select_instances(where)) == [many[f"i-{digit}"] for digit in expected]


def test_pages_follow_each_other_without_gap_or_overlap(
    recorder: InstanceRecorder, many: dict[str, InstanceRow]
) -> None:
    seen: list[str] = []
    while page := recorder.select_instances(InstanceFilter(limit=4, after=seen[-1] if seen else None)):
        seen += [row.id for row in page]
    assert seen == sorted(many)


def test_a_filter_by_status_follows_its_changes(recorder: InstanceRecorder) -> None:
    for sequence, status in enumerate(("active", "paused", "active", "completed"), start=1):
        recorder.insert_events([], changes=Changes(instances=[instance(status=status, sequence=sequence)]))
        for asked in ("active", "paused", "completed"):
            found = [row.sequence for row in recorder.select_instances(InstanceFilter(status=asked))]
            assert found == ([sequence] if asked == status else [])


def test_timers_are_due_in_the_order_of_their_times(recorder: InstanceRecorder) -> None:
    rows = [timer("late", 30), timer("early", 10), timer("middle", 20, instance_id="b")]
    recorder.insert_events([], changes=Changes(timers_set=rows))
    late, early, middle = rows
    assert recorder.next_timer_at() == 10
    assert recorder.due_timers(9, 10) == []
    assert list(recorder.due_timers(20, 10)) == [early, middle]
    assert list(recorder.due_timers(99, 10)) == [early, middle, late]
    assert list(recorder.due_timers(99, 2)) == [early, middle]
    assert list(recorder.select_timers("a")) == [early, late]


def test_a_timer_is_replaced_by_its_id_and_cleared_before_others_are_set(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(timers_set=[timer("one", 10), timer("two", 20)]))
    again = Changes(timers_cleared=[("a", "one"), ("a", "two")], timers_set=[timer("one", 5, event="other")])
    recorder.insert_events([], changes=again)
    assert list(recorder.select_timers("a")) == [timer("one", 5, event="other")]
    recorder.insert_events([], changes=Changes(timers_set=[timer("one", 7)]))
    assert list(recorder.select_timers("a")) == [timer("one", 7)]
    recorder.insert_events([], changes=Changes(timers_cleared=[("b", "one"), ("a", "two")]))
    assert recorder.next_timer_at() == 7
    recorder.insert_events([], changes=Changes(timers_cleared=[("a", "one")]))
    assert recorder.next_timer_at() is None


def test_a_closed_instance_keeps_no_timers_and_others_keep_theirs(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(timers_set=[timer("x"), timer("y"), timer("x", instance_id="b")]))
    recorder.insert_events([], changes=Changes(instances_closed=["a"]))
    assert recorder.select_timers("a") == []
    assert list(recorder.select_timers("b")) == [timer("x", instance_id="b")]


def test_a_definition_is_stored_once_and_never_otherwise(harness: Harness, recorder: InstanceRecorder) -> None:
    first, second = DefinitionRow("approval", "1", "aa", "{}"), DefinitionRow("approval", "2", "bb", '{"x":1}')
    other = DefinitionRow("order", "1", "aa", "{}")
    for row in (first, other, second, first):
        recorder.insert_definition(row)
    with pytest.raises(IntegrityError, match="approval"):
        recorder.insert_definition(first._replace(digest="cc"))
    reader = harness.open()
    assert list(reader.select_definitions()) == [first, other, second]
    assert reader.select_definition("approval", "2") == second
    assert reader.select_definition("approval", "3") is None


def test_a_message_is_parked_once(recorder: InstanceRecorder) -> None:
    for row in (parked("p-1"), parked("p-0", b""), parked("p-1", b"again")):
        recorder.park(row)
    assert list(recorder.select_parked(10)) == [parked("p-1"), parked("p-0", b"")]
    assert list(recorder.select_parked(1)) == [parked("p-1")]


def test_partitions_are_fixed_when_the_store_is_made(harness: Harness) -> None:
    first = harness.open(STATEWRIGHT_PARTITIONS="12")
    assert first.partitions == 12
    assert harness.open().partitions == 12
    assert PARTITIONS_DEFAULT != 12


def test_due_timers_are_counted_up_to_the_limit(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(timers_set=[timer(f"t-{n}", due_at=n) for n in range(10)]))
    assert [recorder.count_timers(now, 8) for now in (-1, 0, 4, 100)] == [0, 1, 5, 8]


def test_a_store_is_touched_again_and_again_whatever_the_clock_says(recorder: InstanceRecorder) -> None:
    for now in (100, 100, 50):
        recorder.touch(now)
    assert recorder.max_tracking_id("readiness") == 102
