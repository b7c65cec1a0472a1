"""The Python door: a workflow that is put together step by step, and compiled to a chart.

    docs = (
        Workflow("docs", mode="parallel")
        .add_step(id="load", function=load)
        .add_step(id="words", function=count_words, dependencies=["load"], parameters={"text": "${steps.load.text}"})
        .add_rollback_step("load", id="unload", function=unload)
    )

What is added is a piece of the written form (see `reader`), so a workflow in Python and one in a file read alike and
mean the same. It is read and checked as a whole when it is first asked for; every fault is in the one
`InvalidWorkflow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.documents import read_document
from statewright.statecharts.errors import ChartError, Fault
from statewright.statecharts.places import Faults, Places
from statewright.statecharts.workflows.compiler import compile_workflow
from statewright.statecharts.workflows.errors import InvalidWorkflow
from statewright.statecharts.workflows.model import (
    Branch,
    Mode,
    OnFailure,
    ParallelGroup,
    WorkflowDefinition,
    WorkflowStep,
)
from statewright.statecharts.workflows.reader import read_workflow
from statewright.statecharts.workflows.validation import validate

Tree = dict[str, Any]
Functions = Mapping[str, Callable[..., Any]]


class Workflow:
    """A workflow while it is built, and what it comes to. All `add_…` give the workflow itself back."""

    def __init__(
        self,
        id: str,  # noqa: A002
        name: str = "",
        *,
        description: str = "",
        mode: Mode = "sequential",
        timeout: str = "",
        concurrency: int | None = None,
        version: str = "1",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._tree: Tree = _given(
            id=id,
            name=name,
            description=description,
            mode=mode,
            timeout=timeout,
            concurrency=concurrency,
            version=version,
            metadata=metadata,
        )
        self._tree["steps"] = []
        self._lines: Mapping[tuple[str | int, ...], int] | None = None
        self._read: tuple[WorkflowDefinition, dict[str, Callable[..., Any]], Places] | None = None
        self._chart: Chart | None = None

    # -- building ------------------------------------------------------------------------------------------------

    def add_step(self, step: WorkflowStep | Mapping[str, Any] | None = None, /, **fields: Any) -> Workflow:
        """Add a step: a `WorkflowStep`, or its fields."""
        self._list("steps").append(_step_tree(step, fields))
        return self._changed()

    def add_dependency(self, step: str, *depends_on: str) -> Workflow:
        """Have `step` run after these. Raises InvalidWorkflow if there is no such step yet."""
        tree = self._step(step)
        tree["dependencies"] = [*tree.get("dependencies", ()), *depends_on]
        return self._changed()

    def add_conditional_branch(
        self, step: str, condition: str, then: Iterable[str] | str = (), otherwise: Iterable[str] | str = ()
    ) -> Workflow:
        """After `step`, run the steps `then` if the condition holds, else those of `otherwise`; the others are
        skipped."""
        branch = {"step": step, "condition": condition, "then": _names(then), "otherwise": _names(otherwise)}
        self._list("branches").append(branch)
        return self._changed()

    def add_parallel_group(
        self,
        name: str,
        steps: Sequence[str] | str,
        merge: str | None = None,
        on_failure: OnFailure = "cancel",
        deadline: str = "",
    ) -> Workflow:
        """Run these steps at once; `merge` comes after them and gets their results by id."""
        group = _given(name=name, steps=_names(steps), merge=merge, on_failure=on_failure, deadline=deadline)
        self._list("groups").append(group)
        return self._changed()

    def add_rollback_step(
        self, step: str, rollback: WorkflowStep | Mapping[str, Any] | None = None, /, **fields: Any
    ) -> Workflow:
        """Say how `step` is undone. Raises InvalidWorkflow if there is no such step yet, or it has a rollback step."""
        tree = self._step(step)
        if "rollback" in tree:
            raise self._refused(f"steps.{step}", f"step {step!r} already has a rollback step")
        tree["rollback"] = _step_tree(rollback, fields)
        return self._changed()

    # -- what it comes to ----------------------------------------------------------------------------------------

    def validate(self) -> Workflow:
        """Raises InvalidWorkflow with all that is wrong."""
        self._definition()
        return self

    def chart(self) -> Chart:
        """The chart that it compiles to. Raises InvalidWorkflow."""
        if self._chart is None:
            definition, _, places = self._all()
            compiled = compile_workflow(definition)
            try:
                self._chart = Chart(compiled, faults=Faults(_places_of(compiled, definition, places)))
            except ChartError as error:  # What only its chart shows: that it has too many states.
                raise InvalidWorkflow(error.faults, definition.id) from error
            self._chart.step_functions = self.functions
        return self._chart

    def definition(self) -> d.Definition:
        """The definition of its chart. Raises InvalidWorkflow."""
        return self.chart().definition

    def to_json(self) -> bytes:
        """Its canonical JSON; functions by their names. Raises InvalidWorkflow."""
        return d.to_json(self._definition())

    @classmethod
    def from_json(cls, data: bytes | str | Mapping[str, Any], functions: Functions | None = None) -> Workflow:
        """The workflow of a JSON text, or of a mapping. Raises InvalidWorkflow."""
        if not isinstance(data, bytes | str):
            return cls.from_tree(data, functions)
        try:
            return cls.from_tree(msgspec.json.decode(data), functions)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidWorkflow([Fault(path="", message=f"not valid JSON: {error}")]) from error

    @classmethod
    def from_tree(
        cls,
        tree: Any,
        functions: Functions | None = None,
        lines: Mapping[tuple[str | int, ...], int] | None = None,
    ) -> Workflow:
        """A workflow from its written form; `functions` are those that it names, `lines` where its parts were written.
        Raises InvalidWorkflow."""
        workflow = cls("")
        workflow._tree = dict(tree) if isinstance(tree, Mapping) else tree
        workflow._lines = lines
        definition, found, _ = workflow._all()
        known = {step.function for step in definition.performed}
        found |= {name: function for name, function in (functions or {}).items() if name in known}
        return workflow

    @classmethod
    def of(cls, definition: d.Definition) -> Workflow | None:
        """The workflow that a chart was compiled from; None for any other chart."""
        tree = definition.meta.get("workflow")
        return cls.from_tree(tree) if isinstance(tree, Mapping) else None

    @property
    def id(self) -> str:
        return str(self._tree.get("id", ""))

    @property
    def name(self) -> str:
        return self._definition().name

    @property
    def description(self) -> str:
        return self._definition().description

    @property
    def version(self) -> str:
        return self._definition().version

    @property
    def mode(self) -> Mode:
        return self._definition().mode

    @property
    def timeout(self) -> str:
        return self._definition().timeout

    @property
    def concurrency(self) -> int | None:
        return self._definition().concurrency

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._definition().metadata

    @property
    def steps(self) -> tuple[WorkflowStep, ...]:
        """The steps in their order, fallback steps among them, without rollback steps."""
        return self._definition().steps

    @property
    def performed(self) -> tuple[WorkflowStep, ...]:
        """The steps, then the rollback steps."""
        return self._definition().performed

    @property
    def rollback(self) -> Mapping[str, WorkflowStep]:
        """The rollback steps, by the id of the step that each undoes."""
        return self._definition().rollbacks

    @property
    def groups(self) -> tuple[ParallelGroup, ...]:
        return self._definition().groups

    @property
    def branches(self) -> tuple[Branch, ...]:
        return self._definition().branches

    @property
    def functions(self) -> Functions:
        """The Python functions that it was built with, by name."""
        return self._all()[1]

    def __repr__(self) -> str:
        return f"<Workflow {self.id}>"

    # -- reading -------------------------------------------------------------------------------------------------

    def _definition(self) -> WorkflowDefinition:
        return self._all()[0]

    def _all(self) -> tuple[WorkflowDefinition, dict[str, Callable[..., Any]], Places]:
        if self._read is None:
            faults = Faults(Places(self._lines))
            definition, functions = read_workflow(self._tree, faults)
            if definition is None or not validate(definition, faults):
                raise InvalidWorkflow(faults.sorted(), self.id if isinstance(self._tree, Mapping) else "")
            self._read = definition, functions, faults.places
        return self._read

    def _changed(self) -> Workflow:
        self._read = self._chart = self._lines = None
        return self

    def _list(self, key: str) -> list[Any]:
        found = self._tree.setdefault(key, [])
        if isinstance(found, Mapping):  # steps by their ids, as files may have them
            found = self._tree[key] = [{"id": step_id, **step} for step_id, step in found.items()]
        elif not isinstance(found, list):
            found = self._tree[key] = [found]
        return found

    def _step(self, step_id: str) -> Tree:
        steps = self._list("steps")
        for index, tree in enumerate(steps):
            if tree.get("id") == step_id:
                steps[index] = dict(tree)
                return steps[index]  # type: ignore[no-any-return]
        raise self._refused("steps", f"there is no step {step_id!r}; add it first")

    def _refused(self, path: str, message: str) -> InvalidWorkflow:
        return InvalidWorkflow([Fault(path=path, message=message)], self.id)


def load_workflow(source: str | Path, functions: Functions | None = None) -> Workflow:
    """The workflow in a `.yaml`, `.yml` or `.json` file. `functions` are those that it names.

    Raises InvalidWorkflow with every fault and its line, ChartError if the file is no YAML or JSON, ChartNotFound if
    there is no such file.
    """
    from statewright.statecharts.chart import read_file

    path = Path(source)
    tree, lines = read_document(read_file(path), is_json=path.suffix == ".json")
    return Workflow.from_tree(tree, functions, lines)


def _places_of(compiled: d.Definition, workflow: WorkflowDefinition, places: Places) -> Places:
    """Where the parts of the chart were written: each state where its step was."""
    if not places.has_lines:
        return Places.canonical(compiled)
    steps = {step.id: step for step in workflow.performed}
    inherited = Places(places.lines)
    for state in d.walk_states(compiled):
        step = steps.get(state.id.partition(".")[0])
        path = places.of(step)[0] if step is not None else ()
        for node in (state, *state.transitions, *state.entry, *state.exit):
            inherited.put(node, path, state.id)
        for transition in state.transitions:
            for action in transition.actions:
                inherited.put(action, path, state.id)
    return inherited


def _step_tree(step: WorkflowStep | Mapping[str, Any] | None, fields: Mapping[str, Any]) -> Tree:
    if step is not None and not isinstance(step, WorkflowStep | Mapping):
        raise InvalidWorkflow([Fault(path="steps", message=f"expected a WorkflowStep or its fields, got {step!r:.60}")])
    given = d.to_tree(step) if isinstance(step, WorkflowStep) else dict(step or {})
    return {key: d.to_tree(value) for key, value in (given | dict(fields)).items()}


def _names(given: Iterable[str] | str) -> list[str]:
    """A list of names; what is none is left to be refused with its place."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _given(**fields: Any) -> Tree:
    return {key: value for key, value in fields.items() if value not in (None, "")}
