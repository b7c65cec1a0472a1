"""Positions: where an execution stands in a workflow in which these steps have come to these results.

Nothing is computed that the chart itself doesn't say: the workflow's chart is started anew, purely, and told the
recorded results. So lanes, joins, conditions, counters and the list of what is to be undone are what they would be had
the execution run that way, also in a workflow that was changed meanwhile.

Invariants: a result is told only to a step that waits for it; what can't be told is said (`Position.untold`), never
guessed. Nothing is performed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from statewright.engine.errors import InvalidError
from statewright.engine.events import ENDED, AnyFact, RestoredStep, Trigger
from statewright.engine.instance import Instance
from statewright.engine.steps import StepRow
from statewright.engine.workflows.plans import Plan
from statewright.statecharts.chart import Chart
from statewright.statecharts.facts import Event, StepRecord

SETTLED = frozenset({"completed", "failed", "skipped", "cancelled"})
"""Statuses of a step for which nothing more is done."""
GIVEN = ("input", "transaction", "execution")
"""The fields of the context that an execution is started with."""
_UNLIMITED = 1 << 40


class Outcome(NamedTuple):
    """What a step has come to, with the trigger that brought it; None if only other steps did (it was skipped)."""

    row: StepRow
    trigger: Trigger | None


class Position(NamedTuple):
    """leaves: the active states without children, active: all active states, both in document order. statuses: of the
    steps, as the chart records them. untold: the steps whose results nothing waits for."""

    leaves: tuple[str, ...]
    active: tuple[str, ...]
    context: Mapping[str, Any]
    statuses: Mapping[str, str]
    untold: tuple[str, ...]


class Placement(NamedTuple):
    """What `modification.modify` is asked to do."""

    targets: tuple[str, ...]
    keep: tuple[str, ...]
    context: Mapping[str, Any]
    steps: tuple[StepRecord, ...]
    restored: tuple[RestoredStep, ...]


def outcomes_of(rows: Iterable[StepRow], facts: Iterable[AnyFact]) -> list[Outcome]:
    """What the settled ones of `rows` have come to, in the order in which they did. `facts`: those of the execution."""
    settled = [row for row in rows if row.status in SETTLED]
    wanted = {row.sequence for row in settled}
    triggers: dict[int, Trigger | None] = {
        fact.sequence: getattr(fact, "trigger", None) for fact in facts if fact.sequence in wanted
    }
    found = [Outcome(row, triggers.get(row.sequence)) for row in settled]
    return sorted(found, key=lambda outcome: outcome.row.sequence)


def position(chart: Chart, instance: Instance, outcomes: Iterable[Outcome], *, limited: bool) -> Position:
    """Where `instance` stands in the workflow of `chart` with `outcomes`. `limited`: it has a limit of concurrency,
    which is left out of account here: what would wait for a free place runs."""
    given = {name: instance.context[name] for name in GIVEN if name in instance.context}
    if limited:
        given["free"] = _UNLIMITED
    machine = chart.machine
    step = machine.start(given, instance.id)
    if step.reason:
        raise InvalidError(f"the workflow '{chart.name}' can't be begun: {step.reason}")
    statuses = {record.step: record.status for record in step.records}
    # Results that were recorded anew since may come after those of steps that depend on them: round after round.
    waiting = _triggers(outcomes)
    told = True
    while waiting and told:
        told, rest = False, []
        for name, trigger in waiting:
            after = machine.step(step.snapshot, Event(trigger.name, trigger.data)) if step.status == "active" else None
            if after is None or after.reason:
                rest.append((name, trigger))
            else:
                step, told = after, True
                statuses |= {record.step: record.status for record in step.records}
        waiting = rest
    snapshot = step.snapshot
    active = machine.names(snapshot.configuration)
    untold = tuple(name for name, _ in waiting)
    return Position(machine.leaves(snapshot.configuration), active, snapshot.context, statuses, untold)


def placement(
    plan: Plan,
    instance: Instance,
    rows: Mapping[str, StepRow],
    found: Position,
    outcomes: Iterable[Outcome],
    *,
    keep: bool,
) -> Placement:
    """How `instance`, with `rows` of its steps as they are now, gets to the position that `outcomes` lead to.

    keep: steps that run there and run now go on; otherwise they are asked for anew, as all others that run there.
    """
    limit = plan.workflow.concurrency
    active = frozenset(instance.configuration) if keep and instance.status not in ENDED else frozenset()
    targets, going_on = [], set()
    for leaf in found.leaves:
        if leaf in active and leaf in plan.steps:
            going_on.add(leaf)
        targets.append(f"{leaf}.queued" if limit is not None and leaf in plan.steps and leaf not in active else leaf)
    kept = tuple(name for name in found.active if name in active)
    context = dict(found.context)
    if limit is not None:
        context |= {"free": max(limit - len(going_on), 0), "queue": []}
    if "undo" in context:
        # What has been done and not been undone stays to be undone, also if it is to be done again.
        context["undo"] += [step for step in instance.context.get("undo", ()) if step not in context["undo"]]
    chosen = {outcome.row.step: outcome.row for outcome in outcomes}
    records, restored = [], []
    for step in (*plan.steps, *(undo.id for undo in plan.rollback.values())):
        row, status = rows.get(step), found.statuses.get(step, "")
        if step in going_on:
            continue
        if status not in SETTLED:
            if row is not None and row.status != "pending":
                records.append(StepRecord(step, "pending"))
        elif (earlier := chosen.get(step)) is not None and earlier.status == status:
            if earlier != row:
                restored.append(RestoredStep(*earlier[1:]))
        elif row is None or row.status != status:
            records.append(StepRecord(step, status))
    return Placement(tuple(targets), kept, context, tuple(records), tuple(restored))


def _triggers(outcomes: Iterable[Outcome]) -> list[tuple[str, Trigger]]:
    """What is told, once for each fact (which may settle several steps): (a step that it settles, the trigger)."""
    found: dict[int, tuple[str, Trigger]] = {}
    for outcome in outcomes:
        trigger = outcome.trigger
        # A step that was skipped, or cancelled, without a result of its own is so because of others.
        if trigger is not None and trigger.kind in ("effect", "timer"):
            found.setdefault(outcome.row.sequence, (outcome.row.step, trigger))
    return list(found.values())
