"""The recorder contract: the rows of steps equal the fold of what is recorded about them, written at once or not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from eventsourcing.persistence import DataError, IntegrityError

from statewright.engine.recorder import Changes, InstanceRecorder
from statewright.engine.steps import StepRow, after
from tests.contracts.recorders import Harness
from tests.contracts.rows import event, inbox, step


def test_steps_are_read_by_instance_and_by_their_ids(recorder: InstanceRecorder) -> None:
    rows = [step("load", started_at=5), step("check", "skipped", ended_at=5), step("a-b", instance_id="ab")]
    recorder.insert_events([event()], changes=Changes(steps=rows))
    assert list(recorder.select_steps("a")) == [rows[1], rows[0]]
    assert list(recorder.select_steps("a", ["load", "unknown", "a-b"])) == [rows[0]]
    assert list(recorder.select_steps("a", [])) == []
    assert list(recorder.select_steps("b")) == []


def test_a_step_that_ends_keeps_when_it_began_unless_that_is_said(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(steps=[step("x", started_at=5), step("y", started_at=5)]))
    ends = [
        step("x", "cancelled", sequence=2, ended_at=9),
        step("y", "completed", sequence=2, started_at=7, ended_at=9),
    ]
    recorder.insert_events([], changes=Changes(steps=ends))
    assert list(recorder.select_steps("a")) == [ends[0]._replace(started_at=5), ends[1]]
    recorder.insert_events([], changes=Changes(steps=[step("y", "compensated", sequence=3)]))
    assert list(recorder.select_steps("a", ["y"])) == [step("y", "compensated", sequence=3, started_at=7, ended_at=9)]


def test_a_step_that_begins_again_has_forgotten_its_times(recorder: InstanceRecorder) -> None:
    recorder.insert_events([], changes=Changes(steps=[step("x", "completed", started_at=5, ended_at=9)]))
    recorder.insert_events([], changes=Changes(steps=[step("x", "pending", sequence=2)]))
    assert list(recorder.select_steps("a")) == [step("x", "pending", sequence=2)]


_RECORDS = (
    step("x", "pending"),
    step("x", "running", started_at=5),
    step("x", "completed", started_at=6, ended_at=9),
    step("x", "skipped", ended_at=8),
    step("x", "compensated"),
)


@pytest.mark.parametrize("split", [0, 1, 2])
def test_what_is_written_at_once_is_what_is_written_one_by_one(harness: Harness, split: int) -> None:
    """All sequences of three records, of which the first `split` are written before the others."""
    recorder = harness.open()
    for number, records in enumerate(product(_RECORDS, repeat=3)):
        rows = [row._replace(instance_id=f"i-{number}", sequence=at) for at, row in enumerate(records)]
        _write(recorder, rows[:split])
        _write(recorder, rows[split:])
        folded: StepRow | None = None
        for row in rows:
            folded = after(folded, row)
        assert list(recorder.select_steps(f"i-{number}")) == [folded]


def test_steps_are_written_with_the_rest_or_not_at_all(recorder: InstanceRecorder) -> None:
    recorder.insert_events([event()], changes=Changes(inbox=[inbox()]))
    with pytest.raises(IntegrityError):
        recorder.insert_events([event("a", 2)], changes=Changes(inbox=[inbox()], steps=[step()]))
    with pytest.raises(DataError):
        recorder.insert_events([event("a", 2)], changes=Changes(steps=[step("lo\0ad")]))
    assert list(recorder.select_steps("a")) == []


def _write(recorder: InstanceRecorder, rows: Sequence[StepRow]) -> None:
    if rows:
        recorder.insert_events([], changes=Changes(steps=list(rows)))
