"""The recorder contract: schedules."""

from __future__ import annotations

import pytest
from eventsourcing.persistence import IntegrityError

from statewright.engine.recorder import InstanceRecorder, ScheduleRow
from tests.contracts.recorders import Harness


def schedule(schedule_id: str = "weekly", next_at: int | None = 100, *, status: str = "active") -> ScheduleRow:
    return ScheduleRow(
        id=schedule_id,
        definition="report",
        version=None,
        cron="0 9 * * MON",
        tz="Europe/Zurich",
        context='{"team":"é"}',
        catch_up="one",
        overlap="skip",
        end_at=2**62,
        status=status,
        next_at=next_at,
        last_at=None,
        note="",
        actor="ann",
        created_at=7,
    )


def test_a_schedule_is_kept_as_it_is(harness: Harness, recorder: InstanceRecorder) -> None:
    rows = [schedule("b"), schedule("a", 2**62)._replace(version="2", end_at=None, last_at=50)]
    for row in rows:
        recorder.insert_schedule(row)
    reader = harness.open()
    assert list(reader.select_schedules()) == rows[::-1]
    assert reader.select_schedule("a") == rows[1]
    assert reader.select_schedule("c") is None


def test_an_id_is_taken_once(recorder: InstanceRecorder) -> None:
    recorder.insert_schedule(schedule())
    with pytest.raises(IntegrityError):
        recorder.insert_schedule(schedule(next_at=5))
    assert list(recorder.select_schedules()) == [schedule()]


def test_active_ones_are_due_in_the_order_of_their_times(recorder: InstanceRecorder) -> None:
    rows = [schedule("a", 30), schedule("b", 10), schedule("c", 20), schedule("d", 5, status="paused")]
    for row in (*rows, schedule("e", None, status="ended")):
        recorder.insert_schedule(row)
    late, early, middle, _ = rows
    assert list(recorder.due_schedules(9, 10)) == []
    assert list(recorder.due_schedules(20, 10)) == [early, middle]
    assert list(recorder.due_schedules(2**63 - 1, 10)) == [early, middle, late]
    assert list(recorder.due_schedules(30, 2)) == [early, middle]


def test_it_is_replaced_only_if_it_is_as_it_was_known(recorder: InstanceRecorder) -> None:
    known = schedule()
    recorder.insert_schedule(known)
    moved = known._replace(next_at=200, last_at=100)
    assert recorder.replace_schedule(known, moved)
    assert recorder.select_schedule("weekly") == moved
    assert not recorder.replace_schedule(known, known._replace(next_at=300))
    for field in ({"status": "paused"}, {"next_at": None}, {"last_at": None}, {"note": "?"}):
        assert not recorder.replace_schedule(moved._replace(**field), known), field
    assert recorder.select_schedule("weekly") == moved
    ended = moved._replace(status="ended", next_at=None, note="it's over")
    assert recorder.replace_schedule(moved, ended)
    assert recorder.replace_schedule(ended, ended._replace(note=""))
    assert not recorder.replace_schedule(schedule("nobody"), schedule("nobody"))
    assert list(recorder.select_schedules()) == [ended._replace(note="")]


def test_it_is_deleted_once(recorder: InstanceRecorder) -> None:
    recorder.insert_schedule(schedule("a"))
    recorder.insert_schedule(schedule("b"))
    assert recorder.delete_schedule("a")
    assert not recorder.delete_schedule("a")
    assert list(recorder.select_schedules()) == [schedule("b")]
