"""What steps have come to, read from table `steps` and the facts that its rows lead to.

A step's data is in one place, the fact that recorded its result, so reading it is two keyed reads, however long the
history is. Functions of the store's reading side: synchronous, for the reading thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import msgspec

from statewright.engine.clock import SECOND_NS
from statewright.engine.events import ENDED, Trigger
from statewright.engine.instance import effect_name_of
from statewright.engine.log import InstanceLog
from statewright.engine.recorder import EffectRow, InstanceRow
from statewright.engine.steps import StepRow
from statewright.statecharts.facts import Json

StepStatus = Literal[
    "pending",
    "running",
    "retrying",
    "completed",
    "failed",
    "skipped",
    "cancelled",
    "compensated",
    "compensation_failed",
]
_UNDONE = frozenset({"compensated", "compensation_failed"})


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one execution.

    `data` is what it returned, `error` why it has failed (for "compensation_failed": why its compensation has; for
    "skipped": why it was skipped, if that was its policy for a failure). "pending" in an execution that has ended is
    what it has not come to.
    `retries` counts the attempts after the first. Times are ns UTC, None where there is none; `execution_time` is that
    of the last attempt until its result was recorded, in seconds.
    """

    step: str
    status: StepStatus
    data: Json = None
    error: str = ""
    retries: int = 0
    started_at: int | None = None
    ended_at: int | None = None
    execution_time: float | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it was performed without success, whatever its policy has made of that."""
        skipped = self.status == "skipped" and self.started_at is not None
        return skipped or self.status in ("failed", "compensation_failed")


class Data(NamedTuple):
    """The data of the completed steps among those asked for, and the status of the others."""

    steps: Mapping[str, Json]
    absent: Mapping[str, str]


def read_data(log: InstanceLog, execution_id: str, steps: Collection[str]) -> Data:
    """Of these steps."""
    found: dict[str, Json] = {}
    absent: dict[str, str] = {}
    for row in log.instances.select_steps(execution_id, steps):
        if row.status == "completed":
            found[row.step] = _data_of(log, row)
        else:
            absent[row.step] = row.status
    return Data(found, absent)


def read_earlier(log: InstanceLog, execution_id: str, steps: Collection[str]) -> dict[str, Json]:
    """The data with which these steps were last completed, of those that ever were, whatever has become of them since.
    Reads the history, so it is for what is rare."""
    found: dict[str, Json] = {}
    for fact in reversed(log.facts(execution_id)) if steps else ():
        for record in getattr(fact, "steps", ()):
            trigger: Trigger | None = getattr(fact, "trigger", None)
            step = record.step
            if record.status == "completed" and step in steps and step not in found and trigger is not None:
                found[step] = trigger.data if _is_of(trigger, step) else None
        if len(found) == len(steps):
            break
    return found


def read_last(log: InstanceLog, execution_id: str, line: Sequence[Sequence[str]], before: int) -> tuple[Json] | None:
    """The data of the last of the first `before` places of `line` of which a step is completed, None if there is none.
    Costs what is passed over on the way, no more."""
    for index in range(before - 1, -1, -1):
        data = read_data(log, execution_id, line[index]).steps
        for step in line[index]:
            if step in data:
                return (data[step],)
    return None


def read_results(
    log: InstanceLog, instance: InstanceRow, steps: Collection[str], *, with_data: bool = True
) -> dict[str, StepResult]:
    """Of each of `steps`, in their order."""
    rows = {row.step: row for row in log.instances.select_steps(instance.id, steps)}
    effects: dict[str, EffectRow] = {}
    if any(row.status == "running" for row in rows.values()):
        effects = read_effects(log, instance.id)
    return {step: _result(log, instance, step, rows.get(step), effects, with_data=with_data) for step in steps}


def _result(
    log: InstanceLog,
    instance: InstanceRow,
    step: str,
    row: StepRow | None,
    effects: Mapping[str, EffectRow],
    *,
    with_data: bool,
) -> StepResult:
    if row is None:
        # What a completed execution has never come to is what its branches have passed over.
        return StepResult(step=step, status="skipped" if instance.status == "completed" else "pending")
    status, retries, error, data = cast(StepStatus, row.status), 0, "", None
    effect = effects.get(step)
    if status == "running" and instance.status in ENDED:
        status = "cancelled"
    elif status == "running" and effect is not None and _has_failed_before(effect):
        status, retries, error = "retrying", max(effect.attempt - 1, 0), effect.error
    elif with_data and status in ("completed", "failed", *_UNDONE):
        trigger = _trigger(log, row)
        own = trigger if trigger is not None and _is_of(trigger, step) else None
        if trigger is not None and effect_name_of(trigger) == step:
            retries = max(trigger.attempt - 1, 0)
        if status == "failed":
            error = _error_of(trigger)
        else:
            error = _error_of(trigger) if status == "compensation_failed" else ""
            data = own.data if own is not None else None
    elif with_data and status == "skipped" and row.started_at is not None:  # Its policy, since it has failed.
        trigger = _trigger(log, row)
        error, retries = _error_of(trigger), max(trigger.attempt - 1, 0) if trigger is not None else 0
    time = None
    if row.started_at is not None and row.ended_at is not None:
        time = max(0, row.ended_at - row.started_at) / SECOND_NS
    return StepResult(
        step=step,
        status=status,
        data=data,
        error=error,
        retries=retries,
        started_at=row.started_at,
        ended_at=row.ended_at,
        execution_time=time,
    )


def _has_failed_before(effect: EffectRow) -> bool:
    return effect.attempt > 1 or (effect.state == "pending" and bool(effect.error))  # Its first may not have counted.


def read_effects(log: InstanceLog, execution_id: str) -> dict[str, EffectRow]:
    """By step, the effect that was asked for last."""
    return {row.name: row for row in log.instances.select_effects(execution_id) if row.kind.startswith("step.")}


def _trigger(log: InstanceLog, row: StepRow) -> Trigger | None:
    """What brought the fact that set this row's status."""
    facts = log.facts(row.instance_id, after=row.sequence - 1, to=row.sequence)
    return getattr(facts[0], "trigger", None) if facts else None


def _data_of(log: InstanceLog, row: StepRow) -> Json:
    trigger = _trigger(log, row)
    return trigger.data if trigger is not None and _is_of(trigger, row.step) else None


def _is_of(trigger: Trigger, step: str) -> bool:
    return trigger.kind == "effect" and trigger.name == f"done.effect.{step}"


def _error_of(trigger: Trigger | None) -> str:
    data = trigger.data if trigger is not None else None
    if isinstance(data, Mapping) and "message" in data and trigger is not None and trigger.kind == "effect":
        return str(data["message"])
    return f"ended by {trigger.name}" if trigger is not None else ""
