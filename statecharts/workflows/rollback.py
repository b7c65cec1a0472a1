"""The part of a workflow's chart that comes after its steps: undoing them, and how it ends.

The ids of completed steps that can be undone are kept in the context's `undo`, in the order of completion.
`rolling_back` takes the last of them, runs its rollback step with retries of its own, and goes on with the one before;
one that fails is recorded, and the rest still run. Where no step can be undone there is nothing of it in the chart.
"""

from __future__ import annotations

from collections.abc import Mapping

from statewright.statecharts import definition as d
from statewright.statecharts.workflows.model import WorkflowDefinition, WorkflowStep
from statewright.statecharts.workflows.validation import retry_of

Actions = tuple[d.AnyAction, ...]

_NEXT = "rolling_back.next"
_END = "rolling_back.end"
_UNDONE = "undone"


class Rollback:
    """A step's rollback step, and what performs it."""

    __slots__ = ("action", "step")

    def __init__(self, step: WorkflowStep, action: d.RunStep) -> None:
        self.step = step
        self.action = action


Rollbacks = Mapping[str, Rollback]


def rollbacks(workflow: WorkflowDefinition) -> dict[str, Rollback]:
    """By the step that is undone."""
    found = {}
    for step, undo in workflow.rollbacks.items():
        by = workflow.performer(undo)
        action = d.RunStep(step=undo.id, by=by, retry=retry_of(undo), timeout=undo.timeout)
        found[step] = Rollback(undo, action)
    return found


def target(undone: Rollbacks, ending: str) -> str:
    """Where a workflow goes that does not go on."""
    return "rolling_back" if undone else ending


def why(undone: Rollbacks, text: str, ending: str) -> Actions:
    """Notes why, and how the workflow will have ended once all is undone."""
    values = {"error": text}
    if undone:
        values["ending"] = f"'{ending}'"
    return (d.Assign(values=values),)


def states(undone: Rollbacks) -> tuple[d.State, ...]:
    """`rolling_back`, if there is anything that could be undone."""
    if not undone:
        return ()
    event = f"size(context.undo) == 0 ? '{_UNDONE}' : 'undo.' + context.undo[size(context.undo) - 1]"
    following = d.State(
        id=_NEXT,
        entry=(d.Send(eventexpr=event, target="#_internal"),),
        transitions=(
            d.Transition(events=(_UNDONE,), target=(_END,)),
            *(d.Transition(events=(f"undo.{step}",), target=(undo.step.id,)) for step, undo in undone.items()),
        ),
    )
    finished = d.Transition(
        events=("done.state.rolling_back",), guard="context.ending == 'cancelled'", target=("cancelled",)
    )
    return (
        d.State(
            id="rolling_back",
            type="compound",
            description="Completed steps are undone, the last one first.",
            transitions=(finished, d.Transition(events=("done.state.rolling_back",), target=("failed",))),
            states=(following, *(_undo(step, undo) for step, undo in undone.items()), d.State(id=_END, type="final")),
        ),
    )


def _undo(step: str, undo: Rollback) -> d.State:
    name = undo.step.id
    done = d.Assign(values={"undo": f"context.undo.filter(step, step != '{step}')"})
    return d.State(
        id=name,
        description=undo.step.description or undo.step.name,
        meta={"step": name, "undoes": step},
        entry=(undo.action, d.Record(step=name, status="running")),
        transitions=(
            d.Transition(
                events=(f"done.effect.{name}",),
                target=(_NEXT,),
                actions=(d.Record(step=name, status="compensated"), done),
            ),
            d.Transition(
                events=(f"error.effect.{name}",),
                target=(_NEXT,),
                actions=(d.Record(step=name, status="compensation_failed"), done),
            ),
        ),
    )


def endings(undone: Rollbacks) -> tuple[d.State, ...]:
    """`prepared` and the final states."""
    back = why(undone, "'the transaction was rolled back'", "cancelled")
    return (
        d.State(
            id="prepared",
            description="All steps of a transaction's execution are done.",
            entry=_report("member.prepared"),
            transitions=(
                d.Transition(events=("workflow.commit",), target=("completed",)),
                d.Transition(
                    events=("workflow.rollback", "workflow.cancel"),
                    target=(target(undone, "cancelled"),),
                    actions=back,
                ),
            ),
        ),
        d.State(id="completed", type="final"),
        d.State(id="failed", type="final", status="failed", entry=_report("member.ended", "failed")),
        d.State(id="cancelled", type="final", status="cancelled", entry=_report("member.ended", "cancelled")),
    )


def _report(event: str, status: str = "") -> Actions:
    """Tells the transaction's coordinator, an instance of its own, if there is one."""
    data: dict[str, d.Json] = {"execution": "context.execution"}
    if status:
        data |= {"status": f"'{status}'", "error": "context.error"}
    sent = d.Send(event=event, targetexpr="'#_scxml_' + context.transaction", data=data)
    return (d.If(branches=(d.Branch(guard="context.transaction != ''", actions=(sent,)),)),)
