"""What waits for what: the steps of a workflow and its groups as units of a directed graph without circles.

A unit is a step, or a group of parallel steps as a whole. Fallback and rollback steps are none: they run in the place
of another, or to undo it. Pure; knows nothing of charts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from statewright.statecharts.workflows.model import (
    Branch,
    ParallelGroup,
    WorkflowDefinition,
    WorkflowStep,
    fallbacks,
)


class Unit(NamedTuple):
    """A step, or a group. `requires`: the units that have to be settled before it; it is skipped if one of them was
    (`any`: if all of them were). `conditions`: what must hold for it to run, a step's own and those of branches."""

    id: str
    steps: tuple[WorkflowStep, ...]
    requires: tuple[str, ...] = ()
    any: bool = False
    group: ParallelGroup | None = None


def units_of(definition: WorkflowDefinition) -> dict[str, Unit]:
    """The units by id, in the order of the document (a group stands where its first step does). Ids that nothing has
    are passed over: they are the validation's business."""
    substitutes = set(fallbacks(definition).values())
    steps = {step.id: step for step in definition.steps if step.id not in substitutes}
    group_of = {step: group for group in definition.groups for step in group.steps if step in steps}
    unit_of = {step: group_of[step].name if step in group_of else step for step in steps}
    needs = {step: list(known.dependencies) for step, known in steps.items()}
    for branch in definition.branches:
        for step in (*branch.then, *branch.otherwise):
            if step in needs:
                needs[step].append(branch.step)
    members: dict[str, list[WorkflowStep]] = {}
    requires: dict[str, dict[str, None]] = {}
    for step_id, written in steps.items():
        unit = unit_of[step_id]
        members.setdefault(unit, []).append(written)
        found = requires.setdefault(unit, {})
        for needed in needs[step_id]:
            if needed in unit_of and unit_of[needed] != unit:
                found[unit_of[needed]] = None
    groups = {group.name: group for group in definition.groups}
    for group in definition.groups:
        if group.merge in steps and group.name in members:
            requires[unit_of[group.merge]][group.name] = None
    exclusive = _exclusive(definition, unit_of, requires) if definition.mode == "conditional" else frozenset()
    return {
        unit: Unit(
            unit,
            tuple(inside),
            tuple(requires[unit]),
            unit in exclusive or (unit not in groups and inside[0].join == "any"),
            groups.get(unit),
        )
        for unit, inside in members.items()
    }


def conditions_of(definition: WorkflowDefinition) -> dict[str, list[str]]:
    """What must hold for each step to run: its own condition, and those of the branches that it is in."""
    found = {step.id: [step.condition] if step.condition else [] for step in definition.steps}
    for branch in definition.branches:
        for step in branch.then:
            found.get(step, []).append(branch.condition)
        for step in branch.otherwise:
            found.get(step, []).append(f"!({branch.condition})")
    return found


def circle(requires: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of dependencies, each waiting for the next, with its first at the end again; empty if there is none."""
    try:
        TopologicalSorter(requires).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return []


def in_order(units: Mapping[str, Unit]) -> list[Unit]:
    """Each unit after those that it requires."""
    sorter = TopologicalSorter({unit.id: unit.requires for unit in units.values()})
    return [units[unit] for unit in sorter.static_order()]


def upstream(units: Mapping[str, Unit], *, sequential: bool) -> dict[str, int]:
    """For each unit the set of those that are settled before it, as bits of their places in `units`."""
    places = {unit: 1 << place for place, unit in enumerate(units)}
    if sequential:
        return {unit: bit - 1 for unit, bit in places.items()}
    found: dict[str, int] = {}
    for unit in in_order(units):
        before = 0
        for required in unit.requires:
            before |= found[required] | places[required]
        found[unit.id] = before
    return found


def _exclusive(
    definition: WorkflowDefinition, unit_of: Mapping[str, str], requires: Mapping[str, Mapping[str, None]]
) -> frozenset[str]:
    """The units that require both sides of a branch, which are never both done."""
    sides: dict[str, set[tuple[int, bool]]] = {unit: set() for unit in requires}
    for number, branch in enumerate(definition.branches):
        for step, side in _sides(branch):
            if step in unit_of:
                sides[unit_of[step]].add((number, side))
    if circle(requires):
        return frozenset()
    exclusive = set()
    for unit in TopologicalSorter(requires).static_order():
        hanging = [sides[required] for required in requires[unit]]
        met = set().union(*hanging)
        if any((number, not side) in met for number, side in met):
            exclusive.add(unit)
            # It runs whichever side is done, so it hangs on neither.
            met = {(number, side) for number, side in met if (number, not side) not in met}
        sides[unit] |= met
    return frozenset(exclusive)


def _sides(branch: Branch) -> list[tuple[str, bool]]:
    return [*((step, True) for step in branch.then), *((step, False) for step in branch.otherwise)]
