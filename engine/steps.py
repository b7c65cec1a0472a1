"""The rows of table `steps`: how far each step of an instance is, by what its facts have recorded (action `record`).

A row is what the last record of its step said, kept small: `sequence` leads to the fact that set the status, whose
trigger has the step's data or error. Nothing here grows with the number of steps. Pure.

Invariant: the rows equal the fold of the records of all facts with `after`, whatever is written at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from statewright.engine.events import Fact, InstanceModified, RestoredStep, Trigger
from statewright.engine.instance import effect_name_of
from statewright.statecharts.facts import StepRecord

BEGINNING = frozenset({"pending", "running"})
"""Statuses with which a step begins, for the first time or again: nothing of before is kept."""
_UNDOING = frozenset({"compensated", "compensation_failed"})
"""Statuses that come after a step's end and leave its times as they are."""


class StepRow(NamedTuple):
    """One step of one instance. status: "pending" | "running" | "completed" | "failed" | "skipped" | "cancelled" |
    "compensated" | "compensation_failed" (or whatever else a chart records). Times are ns UTC, None where there is none
    yet; in a row to be written, None leaves that of a step that has begun as it is."""

    instance_id: str
    step: str
    status: str
    sequence: int
    """Of the fact that set the status."""
    started_at: int | None
    """When its last attempt began, of one that runs when it was asked for; None if it never did."""
    ended_at: int | None


def step_rows(fact: Fact) -> list[StepRow]:
    """What `fact` records about steps, in order; of any kind of fact that has `steps`."""
    records: tuple[StepRecord, ...] = getattr(fact, "steps", ())
    rows = [_row(fact, record) for record in records]
    if isinstance(fact, InstanceModified):
        rows += [StepRow(fact.instance_id, *_restored(step)) for step in fact.steps_restored]
    return rows


def _restored(step: RestoredStep) -> tuple[str, str, int, int | None, int | None]:
    return step.step, step.status, step.sequence, step.started_at, step.ended_at


def fold_steps(facts: Iterable[Fact]) -> list[StepRow]:
    """The rows of one instance, by step, from all its facts in order."""
    found: dict[str, StepRow] = {}
    for fact in facts:
        for row in step_rows(fact):
            found[row.step] = after(found.get(row.step), row)
    return [found[step] for step in sorted(found)]


def after(before: StepRow | None, row: StepRow) -> StepRow:
    """The row as it stands once `row` is written."""
    if before is None or row.status in BEGINNING:
        return row
    started_at = row.started_at if row.started_at is not None else before.started_at
    ended_at = row.ended_at if row.ended_at is not None else before.ended_at
    return row._replace(started_at=started_at, ended_at=ended_at)


def last_rows(rows: Iterable[StepRow]) -> tuple[list[StepRow], list[StepRow]]:
    """One row for each step, by key, for stores that write them in one statement, in which an order has no meaning: the
    rows of steps that begin in it, which replace what is there, and those of the others."""
    begun: dict[tuple[str, str], StepRow] = {}
    going_on: dict[tuple[str, str], StepRow] = {}
    for row in rows:
        key = row[:2]
        if key in begun or row.status in BEGINNING:
            going_on.pop(key, None)
            begun[key] = after(begun.get(key), row)
        else:
            going_on[key] = after(going_on.get(key), row)
    return [begun[key] for key in sorted(begun)], [going_on[key] for key in sorted(going_on)]


def _row(fact: Fact, record: StepRecord) -> StepRow:
    status, now = record.status, fact.time
    if status == "running":
        started_at, ended_at = now, None
    elif status == "pending":
        started_at, ended_at = None, None
    else:
        started_at = _began_at(getattr(fact, "trigger", None), record.step)
        # What is said of a step that another one undoes is not its end; of that other one it is.
        ended_at = None if status in _UNDOING and started_at is None else now
    return StepRow(fact.instance_id, record.step, status, fact.sequence, started_at, ended_at)


def _began_at(trigger: Trigger | None, step: str) -> int | None:
    """When the attempt began whose result this is, if it is that of the step itself."""
    if trigger is None or trigger.kind != "effect" or not trigger.began_at:
        return None
    return trigger.began_at if effect_name_of(trigger) == step else None
