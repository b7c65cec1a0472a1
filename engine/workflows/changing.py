"""Changing the workflow of a running execution: steps that have not started are added, replaced or removed.

    change(engine, execution_id, add=[...], replace=[...], remove=[...])

What results is a workflow of its own, read and checked as a whole like any other. Its version says what it was made
from (`1+0a1b2c3d`: version 1, and the beginning of its content's digest), so the same change of two executions gives
the same definition. The execution is placed in it where the results of its steps lead to; what runs goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from statewright.engine.definitions import DERIVED
from statewright.engine.engine import Engine
from statewright.engine.errors import InvalidError
from statewright.engine.events import ENDED
from statewright.engine.requests import Outcome
from statewright.engine.workflows.errors import InvalidState
from statewright.engine.workflows.plans import Plan, workflow_of
from statewright.engine.workflows.positions import outcomes_of, placement, position
from statewright.engine.workflows.standing import Move, Standing, move
from statewright.statecharts.chart import Chart
from statewright.statecharts.workflows import Workflow, WorkflowDefinition, WorkflowStep
from statewright.statecharts.workflows.compiler import compile_workflow

Given = WorkflowStep | Mapping[str, Any]
Functions = Mapping[str, Callable[..., Any]]
_DIGITS = 8


async def change(
    engine: Engine,
    execution_id: str,
    *,
    add: Iterable[Given] = (),
    replace: Iterable[Given] = (),
    remove: Iterable[str] = (),
    reason: str = "",
    actor: str = "",
    register: Callable[[Workflow], None] = lambda workflow: None,
) -> Outcome:
    """Change what an execution still has to do. add, replace: steps, or their fields as in the written form; one in
    `replace` takes the place of the step with its id. `register` makes the functions of the changed workflow known,
    before any of them can be asked for.

    In the modes sequential and pipeline a step that is added comes after the last one that it depends on and all that
    have started, or at the end if it says nothing. Costs a read of the execution's history.

    Raises `InvalidWorkflow` with the place of all that is wrong with the whole, `InvalidState` (a step has started, the
    execution has ended or is rolling back), `InvalidError` (nothing is changed, no such step), `ExecutionNotFound`,
    `BusyError`, `UnavailableError`. Then nothing has changed.
    """
    for key, steps in (("add", add), ("replace", replace), ("remove", remove)):
        if isinstance(steps, str | Mapping | WorkflowStep):
            raise InvalidError(f"expected a list of steps to {key}, got {type(steps).__name__}")
    asked = Change(list(add), list(replace), list(remove))
    return await move(
        engine,
        execution_id,
        lambda standing: into(standing, *asked.derive(standing)),
        reason=reason,
        actor=actor,
        register=register,
    )


def into(standing: Standing, workflow: Workflow, chart: Chart) -> Move:
    """How an execution goes on in `workflow`, which compiles to `chart`. Pure. Raises `InvalidState`."""
    instance = standing.instance
    definition = workflow_of(chart.definition)
    assert definition is not None
    plan = Plan(definition)
    outcomes = outcomes_of((row for row in standing.rows.values() if row.step in plan.steps), standing.facts)
    found = position(chart, instance, outcomes, limited=definition.concurrency is not None)
    if found.untold:
        raise InvalidState(
            f"expected a change after which execution '{instance.id}' could have come to where it is, but step "
            f"'{found.untold[0]}' would not have run by then"
        )
    running = {name for name in instance.configuration if name in standing.plan.steps}
    lost = sorted(running.difference(found.leaves))
    if lost:
        raise InvalidState(
            f"expected a change that leaves what runs as it is, but step '{lost[0]}' of execution '{instance.id}' runs "
            "and would not have begun yet"
        )
    return Move(placement(plan, instance, standing.rows, found, outcomes, keep=True), workflow, chart)


class Change:
    """What is to be changed."""

    def __init__(self, add: list[Given], replace: list[Given], remove: list[str]) -> None:
        self.add = [_tree(step) for step in add]
        self.replace = {str(tree.get("id")): tree for tree in map(_tree, replace)}
        self.remove = remove
        self._last: tuple[dict[str, Any], Workflow, Chart] | None = None
        if not (self.add or self.replace or self.remove):
            raise InvalidError("expected steps to add, to replace or to remove, got none")

    def derive(self, standing: Standing) -> tuple[Workflow, Chart]:
        """The changed workflow, and its chart. Pure."""
        instance, definition = standing.instance, standing.chart.definition
        if instance.status in ENDED:
            raise InvalidState(f"expected execution '{instance.id}' to run, it is {instance.status}")
        if "running" not in instance.configuration:
            where = instance.configuration[0].replace("_", " ")
            raise InvalidState(f"expected execution '{instance.id}' to have steps to do, it is {where}")
        for step in (*self.replace, *self.remove):
            _require_pending(standing, step)
        tree: dict[str, Any] = msgspec.to_builtins(definition.meta["workflow"])
        steps = [self.replace.get(step["id"], step) for step in tree["steps"] if step["id"] not in self.remove]
        started = {step for step in standing.plan.steps if _is_begun(standing, step)}
        in_line = standing.plan.workflow.in_line
        for added in self.add:
            steps.insert(_place(steps, added, started) if in_line else len(steps), added)
        base = instance.version.rpartition("+")[0] if DERIVED in definition.meta else instance.version
        tree |= {"steps": steps, "version": base}
        if self._last is None or self._last[0] != tree:
            self._last = (tree, *_derived(tree, base))
        return self._last[1:]


def _derived(tree: dict[str, Any], base: str) -> tuple[Workflow, Chart]:
    """The workflow that is written so, as a version derived from `base`, and its chart. Raises `InvalidWorkflow`."""
    digest = hashlib.sha256(Workflow.from_tree(tree).to_json()).hexdigest()
    workflow = Workflow.from_tree(tree | {"version": f"{base}+{digest[:_DIGITS]}"})
    compiled = compile_workflow(msgspec.json.decode(workflow.to_json(), type=WorkflowDefinition))
    chart = Chart(msgspec.structs.replace(compiled, meta={**compiled.meta, DERIVED: base}))
    chart.step_functions = workflow.functions
    return workflow, chart


def _require_pending(standing: Standing, step: str) -> None:
    """Raises `InvalidError` if there is no such step, `InvalidState` if it has started."""
    instance, plan = standing.instance, standing.plan
    if step not in plan.steps:
        raise InvalidError(f"the workflow of execution '{instance.id}' has no step '{step}' that could be changed")
    if _is_begun(standing, step):
        status = standing.rows[step].status if step in standing.rows else "running"
        raise InvalidState(f"expected step '{step}' of execution '{instance.id}' not to have started, it is {status}")
    if step in instance.context.get("undo", ()):
        raise InvalidState(
            f"expected step '{step}' of execution '{instance.id}' never to have been done, it was, before the "
            "execution was resumed from a checkpoint, and may have to be undone"
        )


def _is_begun(standing: Standing, step: str) -> bool:
    row = standing.rows.get(step)
    return step in standing.instance.configuration or (row is not None and row.status != "pending")


def _place(steps: Sequence[Mapping[str, Any]], step: Mapping[str, Any], started: set[str]) -> int:
    """Where in a line of steps one is put."""
    needed = {*step.get("dependencies", ())}
    if not needed:
        return len(steps)
    return max((index + 1 for index, one in enumerate(steps) if one["id"] in needed | started), default=len(steps))


def _tree(step: Given) -> dict[str, Any]:
    """Its fields in the written form."""
    if not isinstance(step, WorkflowStep | Mapping):
        raise InvalidError(f"expected a WorkflowStep or its fields, got {type(step).__name__}")
    return Workflow("x").add_step(step)._tree["steps"][0]  # type: ignore[no-any-return]
