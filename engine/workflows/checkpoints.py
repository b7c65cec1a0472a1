"""Checkpoints of executions, and resuming from one.

A checkpoint is a name for where an execution stands: a fact, no copy of anything. To resume from one is another fact
(`instance_modified`): what had settled by then is as it was, and all after it is to be done (again). What runs at that
moment is cancelled, what ran at the checkpoint is asked for anew, the workflow's own timeout begins again.

Compensation, which must be right after all of that:
- A step that has been compensated since runs again, wherever it stands: what it did is undone. So do those that come
  after it.
- A step that was done after the checkpoint, and was not compensated, stays on the list of what is to be undone although
  it is to be done again: a rollback before that undoes the first time; one after it undoes the step once, in its new
  place.
- One whose compensation failed counts as done: nobody has undone it.
- While compensations run nothing can be resumed: it would go on from what they are about to undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from statewright.engine.engine import Engine
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError
from statewright.engine.events import ENDED, AnyFact
from statewright.engine.requests import CheckpointRequest, Outcome, check_text
from statewright.engine.steps import StepRow, fold_steps
from statewright.engine.workflows.errors import InvalidState
from statewright.engine.workflows.plans import Plan
from statewright.engine.workflows.positions import SETTLED, outcomes_of, placement, position
from statewright.engine.workflows.standing import Move, Standing, move, standing_of

ROLLING_BACK = "rolling_back"


class CheckpointExists(AlreadyExistsError):
    """The execution has a checkpoint of this name."""


class CheckpointNotFound(NotFoundError):
    """The execution has no checkpoint of this name."""


async def checkpoint(engine: Engine, execution_id: str, name: str, *, reason: str = "", actor: str = "") -> Outcome:
    """Give a name to where an execution stands. Raises `CheckpointExists`, `InvalidState` (it has ended, or undoes what
    it did), `InvalidError` (no name), `ExecutionNotFound`, `BusyError`, `UnavailableError`."""
    _check_name(name)
    instance = (await standing_of(engine, execution_id)).instance
    if instance.status not in ENDED and ROLLING_BACK in instance.configuration:
        raise InvalidState(f"expected execution '{execution_id}' to run, it is rolling back")
    outcome: Outcome = await engine.submit(CheckpointRequest(execution_id, name, reason, actor))
    if outcome.kind == "refused":
        refusal = CheckpointExists if "a checkpoint" in outcome.reason else InvalidState
        raise refusal(outcome.reason.replace("instance", "execution", 1))
    return outcome


async def resume_from(engine: Engine, execution_id: str, name: str, *, reason: str = "", actor: str = "") -> Outcome:
    """Go back to a checkpoint and on from there, whether the execution runs, is paused or has ended.

    Costs a read of its history. Raises `CheckpointNotFound`, `InvalidState` (compensations run), `ExecutionNotFound`,
    `BusyError` (other workers go on with it faster than this is worked out), `UnavailableError`.
    """
    _check_name(name)
    said = reason or f"resumed from checkpoint '{name}'"
    return await move(engine, execution_id, lambda standing: back_to(standing, name), reason=said, actor=actor)


def back_to(standing: Standing, name: str) -> Move:
    """Pure. Raises `CheckpointNotFound`, `InvalidState`."""
    instance, facts, plan = standing.instance, standing.facts, standing.plan
    taken = instance.checkpoints.get(name)
    if taken is None:
        known = ", ".join(instance.checkpoints) or "none"
        raise CheckpointNotFound(f"execution '{instance.id}' has no checkpoint '{name}'; there are: {known}")
    if ROLLING_BACK in instance.configuration:
        how = "was cancelled while it rolled" if instance.status in ENDED else "rolls"
        raise InvalidState(f"expected execution '{instance.id}' to have compensated what it does, it {how} back")
    transaction = instance.context.get("transaction")
    if transaction and (instance.status in ENDED or "prepared" in instance.configuration):
        raise InvalidState(
            f"expected execution '{instance.id}' to be no member of a transaction, or to run, but transaction "
            f"'{transaction}' was told that it is through"
        )
    earlier = fold_steps(fact for fact in facts if fact.sequence <= taken)
    chosen = _as_of(earlier, standing.rows, _compensated(plan, facts))
    outcomes = outcomes_of((row for row in chosen if row.step in plan.steps), facts)
    found = position(standing.chart, instance, outcomes, limited=plan.workflow.concurrency is not None)
    there = placement(plan, instance, standing.rows, found, outcomes, keep=False)
    return Move(there, activate=True)


def _as_of(earlier: Iterable[StepRow], now: Mapping[str, StepRow], compensated: Mapping[str, int]) -> Iterable[StepRow]:
    """What holds of what had settled: the newest result of each step that has not been undone since."""
    for then in earlier:
        if then.status in SETTLED:
            last = now[then.step]
            found = last if last.status == "completed" else then
            if compensated.get(then.step, 0) < found.sequence:
                yield found


def _compensated(plan: Plan, facts: Iterable[AnyFact]) -> Mapping[str, int]:
    """By step, the sequence of the fact that says that it was compensated, the last one."""
    undoes = {undo.id: step for step, undo in plan.rollback.items()}
    return {
        undoes[record.step]: fact.sequence
        for fact in facts
        for record in getattr(fact, "steps", ())
        if record.status == "compensated" and record.step in undoes
    }


def _check_name(name: str) -> None:
    """Raises `InvalidError` unless it is a text that is not empty."""
    check_text("the checkpoint's name", name)
    if not name:
        raise InvalidError("expected a name for the checkpoint, got none")
