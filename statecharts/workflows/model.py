"""What a workflow is, as data: steps, what they depend on, and what to do when one fails.

One frozen tree that every door (YAML, JSON, Python) reads into and the compiler reads from, as a chart's definition is.
Its JSON is canonical: defaults are omitted, and steps keep their order.
"""

from __future__ import annotations

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


def fallbacks(definition: WorkflowDefinition) -> dict[str, str]:
    """step -> the step that is done in its place when it fails."""
    return {step.id: step.on_error.fallback for step in definition.steps if step.on_error.fallback}
