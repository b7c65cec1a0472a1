"""What performers and queries know of a pinned workflow: read from its stored definition once, kept by digest.

Invariants: everything here follows from the definition alone, so it is the same in every process and attempt; reading
one compiles no chart, so nothing that the chart names has to be there. No question about one step costs what the number
of the others does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from statewright.engine.engine import Engine
from statewright.engine.errors import UnusableError
from statewright.engine.recorder import InstanceRecorder
from statewright.statecharts.definition import Definition
from statewright.statecharts.facts import Json
from statewright.statecharts.workflows.model import WorkflowDefinition, WorkflowStep, fallbacks, line_of
from statewright.statecharts.workflows.parameters import Parameters

PLANS_MAX = 256
"""How many definitions are kept."""


_NONE = Parameters({})


class Needs(NamedTuple):
    """What has to be read before a step's parameters can be resolved."""

    steps: frozenset[str]
    """Whose data is asked for: of those that templates mention, and of the group that a step merges."""
    results: Sequence[str]
    """Those of the group."""
    before: int
    """In a pipeline, if the data of the last completed step is asked for: how many places of `Plan.line` come before;
    else 0."""


class Plan:
    """One workflow, as pinned by one digest.

    steps: by id, in their order, without rollback steps. rollback: the compensation of each step that has one, by that
    step's id. line: what follows on what in a pipeline; each place is a step and, if it has one, the fallback that is
    done in its stead.
    """

    def __init__(self, workflow: WorkflowDefinition) -> None:
        self.workflow = workflow
        self.steps: Mapping[str, WorkflowStep] = {step.id: step for step in workflow.steps}
        self.rollback: Mapping[str, WorkflowStep] = workflow.rollbacks
        self.fallbacks = fallbacks(workflow)
        self._performed = {step.id: step for step in workflow.performed}
        self.performed = tuple(self._performed)
        """The ids of all that can be performed, rollback steps last."""
        self._merged = {group.merge: group.steps for group in workflow.groups if group.merge}
        self._parameters: dict[str, Parameters] = {}
        stand_ins = set(self.fallbacks.values())
        self.line = tuple(line_of(step, self.fallbacks) for step in self.steps if step not in stand_ins)
        self._position = {step: index for index, place in enumerate(self.line) for step in place}

    def step(self, step: str) -> WorkflowStep | None:
        """Any step that is performed, rollback steps among them."""
        return self._performed.get(step)

    def parameters(self, step: WorkflowStep) -> Parameters:
        """Compiled at their first use; that they can be was checked with the workflow."""
        if not step.parameters:
            return _NONE
        found = self._parameters.get(step.id)
        if found is None:
            found = self._parameters[step.id] = Parameters(step.parameters)
        return found

    def subject(self, step: WorkflowStep) -> str:
        """Which of `previous` and `results` the step is there for; "" for neither."""
        if step.id in self._merged:
            return "results"
        return "previous" if self.workflow.mode == "pipeline" and step.id in self._position else ""

    def needs(self, step: WorkflowStep, uses: frozenset[str]) -> Needs:
        """`uses`: what of `parameters.NAMES` is asked for."""
        results = self._merged.get(step.id, ()) if "results" in uses else ()
        is_piped = "previous" in uses and self.workflow.mode == "pipeline"
        steps = self.parameters(step).steps.union(results)
        return Needs(steps, results, self._position.get(step.id, 0) if is_piped else 0)

    def with_fallbacks(self, steps: frozenset[str]) -> frozenset[str]:
        """`steps` and whatever may have been done in their stead."""
        if not self.fallbacks:
            return steps
        return steps.union(other for step in steps for other in line_of(step, self.fallbacks))

    def stand_in(self, step: str, data: Mapping[str, Json]) -> str:
        """Whose data is that of `step`: its own, or that of the fallback that was done in its stead."""
        return next((one for one in line_of(step, self.fallbacks) if one in data), step)


class Plans:
    """Those lately used, by digest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._by_digest: OrderedDict[str, Plan | None] = OrderedDict()

    async def of(self, name: str, version: str, digest: str) -> Plan | None:
        """The plan of a definition; None if it was not compiled from a workflow. Raises `UnavailableError`."""
        if digest in self._by_digest:
            self._by_digest.move_to_end(digest)
            return self._by_digest[digest]
        return self.keep(
            digest, await self._engine.on_reader(read_workflow, self._engine.recorder, name, version, digest)
        )

    def keep(self, digest: str, workflow: WorkflowDefinition | None) -> Plan | None:
        """The plan of the definition with that digest, which was compiled from `workflow`."""
        plan = self._by_digest[digest] = None if workflow is None else Plan(workflow)
        if len(self._by_digest) > PLANS_MAX:
            self._by_digest.popitem(last=False)
        return plan


def read_workflow(recorder: InstanceRecorder, name: str, version: str, digest: str) -> WorkflowDefinition | None:
    """What a stored definition was compiled from, None if not from a workflow. Raises `UnusableError`."""
    row = recorder.select_definition(name, version)
    if row is None or row.digest != digest:
        raise UnusableError(f"definition '{name}' version '{version}' ({digest[:12]}) is not in the store")
    return workflow_in(row.json)


def workflow_in(definition: str) -> WorkflowDefinition | None:
    """What the JSON of a definition was compiled from."""
    if '"workflow"' not in definition:  # Most are charts.
        return None
    return workflow_of(msgspec.json.decode(definition, type=Definition))


def workflow_of(definition: Definition) -> WorkflowDefinition | None:
    """What it was compiled from, None if not from a workflow."""
    try:
        return msgspec.convert(definition.meta.get("workflow"), WorkflowDefinition)
    except msgspec.ValidationError:
        return None
