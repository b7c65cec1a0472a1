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
from statewright.engine.workflows.parameters import Parameters
from statewright.statecharts.definition import Definition
from statewright.statecharts.workflows import Workflow, WorkflowStep

PLANS_MAX = 256
"""How many definitions are kept."""


class Needs(NamedTuple):
    """What has to be read before a step's parameters can be resolved."""

    steps: frozenset[str]
    """Whose data the templates mention."""
    before: int
    """In a pipeline: how many steps come before it, in `Plan.order`, if the data of the last completed one is asked
    for; else 0."""
    results: Sequence[str]
    """For the step that merges a group: the group's steps, if they are asked for."""


class Plan:
    """One workflow, as pinned by one digest. `order`: its steps as they were added, without rollback steps."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.steps: Mapping[str, WorkflowStep] = {step.id: step for step in workflow.steps}
        self.rollback: Mapping[str, WorkflowStep] = dict(workflow.rollback)
        """By the step that is compensated."""
        self.order = tuple(self.steps)
        self._performed = {**self.steps, **{step.id: step for step in self.rollback.values()}}
        self._merged = {group.merge: group.steps for group in workflow.groups if group.merge}
        self._position = {step: index for index, step in enumerate(self.order)}
        self._parameters: dict[str, Parameters] = {}

    def step(self, step: str) -> WorkflowStep | None:
        """Any step that is performed, rollback steps among them."""
        return self._performed.get(step)

    def parameters(self, step: WorkflowStep) -> Parameters:
        """Compiled at their first use. Raises `InvalidParameters`."""
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
        return Needs(self.parameters(step).steps, self._position.get(step.id, 0) if is_piped else 0, results)


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
        workflow = await self._engine.on_reader(read_workflow, self._engine.recorder, name, version, digest)
        plan = self._by_digest[digest] = None if workflow is None else Plan(workflow)
        if len(self._by_digest) > PLANS_MAX:
            self._by_digest.popitem(last=False)
        return plan


def read_workflow(recorder: InstanceRecorder, name: str, version: str, digest: str) -> Workflow | None:
    """What a stored definition was compiled from, None if not from a workflow. Raises `UnusableError`."""
    row = recorder.select_definition(name, version)
    if row is None or row.digest != digest:
        raise UnusableError(f"definition '{name}' version '{version}' ({digest[:12]}) is not in the store")
    return workflow_in(row.json)


def workflow_in(definition: str) -> Workflow | None:
    """What the JSON of a definition was compiled from."""
    if '"workflow"' not in definition:  # Most are charts.
        return None
    return Workflow.of(msgspec.json.decode(definition, type=Definition))
