"""What a workflow is, as data: steps, what they depend on, and what to do when one fails.

One frozen tree that every door (YAML, JSON, Python) reads into and the compiler reads from, as a chart's definition is.
Its JSON is canonical: defaults are omitted, and steps keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from statewright.statecharts.definition import Json, Node

Mode = Literal["sequential", "parallel", "conditional", "pipeline"]
Join = Literal["all", "any"]
ErrorAction = Literal["abort", "retry", "skip", "continue", "fallback"]
OnFailure = Literal["cancel", "partial"]


class OnError(Node, frozen=True):
    """What happens when a step has failed for good: `abort` the workflow; `retry`, which is abort with numbers of its
    own; `skip` the step and what depends on it; `continue` as if it were done; or do the step `fallback` in its place.

    The numbers are those of the step where they are not given.
    """

    action: ErrorAction = "abort"
    fallback: str = ""
    max_retries: Annotated[int, Meta(ge=0)] | None = None
    retry_delay: str = ""
    retry_backoff: Annotated[float, Meta(ge=1)] | None = None
    retry_delay_max: str = ""


class WorkflowStep(Node, frozen=True):
    """One step: what performs it (a function, or the method of a plugin or of a service), with which parameters, when,
    and what happens when it fails. Durations are texts such as `30s` or `PT30S`.

    `function` may be a Python function while a workflow is being built; read back it is its name. `parameters` are data
    with templates: `${steps.load.rows}`. `condition` is CEL over `input` and `steps`. `timeout` is for one attempt.
    """

    id: str
    name: str = ""
    description: str = ""
    plugin: str = ""
    service: str = ""
    function: Any = ""
    method: str = ""
    parameters: dict[str, Json] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    join: Join = "all"
    condition: str = ""
    timeout: str = "60s"
    max_retries: Annotated[int, Meta(ge=0)] = 3
    retry_delay: str = "1s"
    retry_backoff: Annotated[float, Meta(ge=1)] = 2.0
    retry_delay_max: str = "60s"
    critical: bool = True
    on_error: OnError = OnError()
    rollback: WorkflowStep | None = None
    compensate_failure: bool = False
    metadata: dict[str, Json] = field(default_factory=dict)


class Branch(Node, frozen=True):
    """After `step`, the steps `then` run if the condition holds, those of `otherwise` if it does not; the others are
    skipped."""

    step: str
    condition: str
    then: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()


class ParallelGroup(Node, frozen=True):
    """Steps that run at once, and the step `merge` that gets all their results by id.

    With `cancel` the first of them that fails (and whose own policy is to abort) aborts the workflow, which cancels the
    others. With `partial` those that fail, or have not ended after `deadline`, are left out.
    """

    name: str
    steps: tuple[str, ...]
    merge: str = ""
    on_failure: OnFailure = "cancel"
    deadline: str = ""


class WorkflowDefinition(Node, frozen=True):
    """A whole workflow. `timeout` is for all of it ("" for none), `concurrency` how many steps run at once (none: as
    many as can)."""

    id: str
    name: str = ""
    description: str = ""
    version: str = "1"
    mode: Mode = "sequential"
    timeout: str = ""
    concurrency: Annotated[int, Meta(ge=1)] | None = None
    steps: tuple[WorkflowStep, ...] = ()
    branches: tuple[Branch, ...] = ()
    groups: tuple[ParallelGroup, ...] = ()
    metadata: dict[str, Json] = field(default_factory=dict)

    @property
    def in_line(self) -> bool:
        """Whether its steps run in their order, one after another."""
        return self.mode in ("sequential", "pipeline")

    @property
    def rollbacks(self) -> dict[str, WorkflowStep]:
        """What undoes a step, by the id of that step."""
        return {step.id: step.rollback for step in self.steps if step.rollback is not None}

    @property
    def performed(self) -> tuple[WorkflowStep, ...]:
        """All that can be performed: the steps, then the rollback steps."""
        return (*self.steps, *self.rollbacks.values())

    def performer(self, step: WorkflowStep) -> str:
        """Who performs one of them: `function.<workflow>.<name>`, `plugin` or `service`."""
        return f"function.{self.id}.{step.function}" if step.function else "plugin" if step.plugin else "service"


def fallbacks(definition: WorkflowDefinition) -> dict[str, str]:
    """step -> the step that is done in its place when it fails."""
    return {step.id: step.on_error.fallback for step in definition.steps if step.on_error.fallback}


def line_of(step: str, fallback_of: Mapping[str, str]) -> tuple[str, ...]:
    """A step and its fallbacks, each that of the one before it."""
    found = [step]
    while (fallback := fallback_of.get(found[-1])) is not None and fallback not in found:
        found.append(fallback)
    return tuple(found)
