"""What is asked about an execution: its status, and its figures. Pure: from the instance's row and its steps.

Invariants: a status costs one row, whatever the number of steps (the chart counts them as they settle); progress is 1.0
for whatever is completed, also if steps were skipped or never needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import UnavailableError
from statewright.engine.events import ENDED
from statewright.engine.recorder import EffectRow, InstanceRow
from statewright.engine.workflows.plans import Plan
from statewright.engine.workflows.results import StepResult

Status = Literal["running", "paused", "rolling_back", "prepared", "completed", "failed", "cancelled"]


class ExecutionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a workflow.

    status: "rolling_back" while completed steps are compensated; "prepared" when all steps are done and its transaction
    is waited for. progress: from 0 to 1, the share of steps that have settled (completed, failed or skipped).
    current_steps: those that run, or wait for another attempt. Counts are of steps without rollback steps. error: why
    it has failed or was cancelled. Times are ns UTC, `ended_at` None while it runs.
    """

    execution_id: str
    workflow_id: str
    version: str
    status: Status
    progress: float
    current_steps: tuple[str, ...]
    completed_steps: int
    failed_steps: int
    skipped_steps: int
    total_steps: int
    error: str
    started_at: int
    updated_at: int
    ended_at: int | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself: it has ended, or waits for its transaction."""
        return self.status in ENDED or self.status == "prepared"


class ExecutionMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one execution. `retries` counts attempts after the first, over all steps. Durations are seconds:
    `duration` from the start to the end (or to now), `steps` by step that of its last attempt. errors: by step."""

    execution_id: str
    workflow_id: str
    status: Status
    total_steps: int
    completed_steps: int
    failed_steps: int
    skipped_steps: int
    cancelled_steps: int
    compensated_steps: int
    failed_compensations: int
    retries: int
    duration: float
    step_durations: dict[str, float]
    errors: dict[str, str]


def is_over(row: InstanceRow) -> bool:
    """As `ExecutionStatus.is_over`, told by the row alone."""
    return row.status in ENDED or '"prepared"' in row.configuration


def status_of(row: InstanceRow, plan: Plan) -> ExecutionStatus:
    """The status that a row says. Raises `UnavailableError` if its context is encrypted and there is no key."""
    context = msgspec.json.decode(row.context or "null")
    if context is None:
        raise UnavailableError(f"what execution '{row.id}' has done is encrypted, and its key is not here")
    active: list[str] = msgspec.json.decode(row.configuration)
    counts = {name: int(context.get(name, 0)) for name in ("completed", "failed", "skipped")}
    total = len(plan.steps)
    status = _status(row, active)
    settled = 1.0 if status in ("completed", "prepared") or not total else min(sum(counts.values()) / total, 1.0)
    return ExecutionStatus(
        execution_id=row.id,
        workflow_id=row.definition,
        version=row.version,
        status=status,
        progress=settled,
        current_steps=tuple(state for state in active if plan.step(state)) if row.status not in ENDED else (),
        completed_steps=counts["completed"],
        failed_steps=counts["failed"],
        skipped_steps=counts["skipped"],
        total_steps=total,
        error=row.failure,
        started_at=row.started_at,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
    )


def _status(row: InstanceRow, active: list[str]) -> Status:
    if row.status != "active":
        return row.status  # type: ignore[return-value]
    return "rolling_back" if "rolling_back" in active else "prepared" if "prepared" in active else "running"


def metrics_of(
    status: ExecutionStatus,
    results: Mapping[str, StepResult],
    rollback: Collection[str],
    effects: Mapping[str, EffectRow],
    now: int,
) -> ExecutionMetrics:
    """`results` of all steps, rollback steps too, `effects` the last of each step, `now` in ns UTC."""
    counted = [result.status for step, result in results.items() if step not in rollback]
    undone = [results[step].status for step in rollback if step in results]
    return ExecutionMetrics(
        execution_id=status.execution_id,
        workflow_id=status.workflow_id,
        status=status.status,
        total_steps=status.total_steps,
        completed_steps=counted.count("completed"),
        failed_steps=counted.count("failed"),
        skipped_steps=counted.count("skipped"),
        cancelled_steps=counted.count("cancelled"),
        compensated_steps=undone.count("compensated"),
        failed_compensations=undone.count("compensation_failed"),
        retries=sum(max(effect.attempt - 1, 0) for effect in effects.values()),
        duration=((status.ended_at or now) - status.started_at) / SECOND_NS,
        step_durations={
            step: result.execution_time for step, result in results.items() if result.execution_time is not None
        },
        errors={step: result.error for step, result in results.items() if result.error},
    )
