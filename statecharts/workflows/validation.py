"""What a workflow must be to make sense: ids that are there and unique, no circles, durations and conditions that can
be read, data that is there when it is asked for. Finds all faults in one pass; the reader has looked at the shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from statewright.statecharts.actions_reader import suggest
from statewright.statecharts.definition import Retry
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.places import Faults
from statewright.statecharts.policies import PolicyFaults, compile_policy
from statewright.statecharts.workflows.conditions import check_condition, mentioned
from statewright.statecharts.workflows.dependencies import circle, units_of, upstream
from statewright.statecharts.workflows.model import (
    Branch,
    OnError,
    ParallelGroup,
    WorkflowDefinition,
    WorkflowStep,
    fallbacks,
    line_of,
)
from statewright.statecharts.workflows.parameters import Parameters, TemplateError

STEPS_MAX = 4_000


def validate(definition: WorkflowDefinition, faults: Faults) -> bool:
    """Note everything wrong with the workflow. False: do not go on with it."""
    if len(definition.steps) > STEPS_MAX:
        faults.add(definition, f"expected at most {STEPS_MAX} steps, got {len(definition.steps)}", "steps")
        return False
    _Validator(definition, faults).run()
    return not faults


def retry_of(step: WorkflowStep) -> Retry:
    """How a step's failed attempts are made again: its error policy's numbers, else its own."""
    own: OnError = step.on_error
    retries = step.max_retries if own.max_retries is None else own.max_retries
    return Retry(
        attempts=retries + 1,
        initial=own.retry_delay or step.retry_delay,
        maximum=own.retry_delay_max or step.retry_delay_max,
        multiplier=step.retry_backoff if own.retry_backoff is None else own.retry_backoff,
    )


_RETRY = {
    "initial": "retry_delay",
    "maximum": "retry_delay_max",
    "attempts": "max_retries",
    "multiplier": "retry_backoff",
}
"""What a step calls the numbers of a retry policy."""


class _Validator:
    def __init__(self, definition: WorkflowDefinition, faults: Faults) -> None:
        self.definition = definition
        self.faults = faults
        self.steps: dict[str, WorkflowStep] = {}
        self.fallback_of: dict[str, str] = {}
        self.group_of: dict[str, ParallelGroup] = {}
        self.parameters: dict[str, frozenset[str]] = {}
        """The steps whose data each step's parameters ask for."""
        self.fallbacks = fallbacks(definition)
        self.stand_ins = frozenset(self.fallbacks.values())

    def run(self) -> None:
        self._ids()
        self._duration(self.definition, self.definition.timeout, "timeout")
        for step in self._all_steps():
            self._policy(step)
        for step in self.definition.steps:
            self._dependencies(step)
            self._fallback(step)
        for branch in self.definition.branches:
            for key in ("step", "then", "otherwise"):
                value = getattr(branch, key)
                for step_id in (value,) if isinstance(value, str) else value:
                    self._known(branch, step_id, key)
            self._branch(branch)
        for group in self.definition.groups:
            self._group(group)
        if not self.faults and not self._goes_round():
            self._references()
        elif self.faults:
            self._what_else()

    def _what_else(self) -> None:
        """Beside other faults: circles, and steps that are asked for and not there."""
        if not self.definition.groups:  # A group that is wrong makes circles of its own.
            self._goes_round()
        for step in self._all_steps():
            for key, asked in (
                ("condition", mentioned(step.condition)[0]),
                ("parameters", self.parameters.get(step.id)),
            ):
                for step_id in sorted(asked or ()):
                    self._known(step, step_id, key)

    def _branch(self, branch: Branch) -> None:
        seen: set[str] = {branch.step}
        for key in ("then", "otherwise"):
            for index, step_id in enumerate(getattr(branch, key)):
                if step_id in seen:
                    said = "the step before the branch" if step_id == branch.step else "in the branch already"
                    self.faults.add(branch, f"expected another step, got {step_id!r}, which is {said}", key, index)
                seen.add(step_id)
        # One that is not there at all was noted by the reader.
        if branch.condition and (complaint := check_condition(branch.condition)):
            self.faults.add(branch, complaint, "condition")

    def _all_steps(self) -> Iterator[WorkflowStep]:
        for step in self.definition.steps:
            yield step
            if step.rollback is not None:
                yield step.rollback

    def _ids(self) -> None:
        seen: dict[str, Any] = {}
        named = [(group, group.name, "name") for group in self.definition.groups]
        for node, name, key in [*((step, step.id, "id") for step in self._all_steps()), *named]:
            if name in seen:
                line = self.faults.places.line(self.faults.places.of(seen[name])[0])
                where = f" (the first is on line {line})" if line else ""
                self.faults.add(node, f"the id {name!r} is given twice{where}; ids are unique in a workflow", key)
            else:
                seen[name] = node
        self.steps = {step.id: step for step in reversed(self.definition.steps)}

    def _known(self, node: Any, step_id: str, *suffix: str | int) -> bool:
        if step_id in self.steps:
            return True
        self.faults.add(node, f"there is no step {step_id!r}{suggest(step_id, self.steps)}", *suffix)
        return False

    def _duration(self, node: Any, text: str, *suffix: str) -> None:
        if text and not parse_duration(text):
            expected = "expected a duration such as 30s or PT30S, longer than nothing"
            self.faults.add(node, f"{expected}, got {text!r}", *suffix)

    def _policy(self, step: WorkflowStep) -> None:
        said = {key for key in _RETRY.values() if getattr(step.on_error, key) not in (None, "")}
        found: PolicyFaults = []
        compile_policy(retry_of(step), step.timeout, "", found)
        for path, message in found:
            key = _RETRY.get(path[-1], path[-1])
            self.faults.add(step, f"{message} in step {step.id!r}", *(("on_error", key) if key in said else (key,)))
        for key in said & {"retry_delay", "retry_delay_max"}:  # The step's own, which do not count here.
            self._duration(step, getattr(step, key), key)
        if complaint := check_condition(step.condition) if step.condition else "":
            self.faults.add(step, complaint, "condition")
        self._templates(step)

    def _dependencies(self, step: WorkflowStep) -> None:
        seen: set[str] = set()
        for index, needed in enumerate(step.dependencies):
            place = ("dependencies", index)
            if needed == step.id:
                self.faults.add(step, f"step {step.id!r} depends on itself", *place)
            elif needed in seen:
                self.faults.add(step, f"step {step.id!r} depends on {needed!r} twice", *place)
            else:
                self._known(step, needed, *place)
            seen.add(needed)

    def _fallback(self, step: WorkflowStep) -> None:
        fallback = step.on_error.fallback
        if not fallback or not self._known(step, fallback, "on_error", "fallback"):
            return
        first = self.fallback_of.setdefault(fallback, step.id)
        if first != step.id:
            message = f"expected {fallback!r} to be the fallback of one step, it is already that of {first!r}"
            self.faults.add(step, message, "on_error", "fallback")
        chain = line_of(step.id, self.fallbacks)
        if following := self.fallbacks.get(chain[-1]):
            message = f"fallbacks go round in a circle: {' -> '.join([*chain, following])}"
            self.faults.add(step, message, "on_error", "fallback")
        other = self.steps[fallback]
        if other.on_error.action == "skip":
            message = f"expected {fallback!r}, the fallback of {step.id!r}, to abort, continue or have one of its own"
            self.faults.add(other, f"{message} when it fails, got skip", "on_error")
        for key in ("dependencies", "condition"):
            if getattr(other, key):
                message = f"expected no {key} of {fallback!r}, which runs only in the place of {step.id!r}"
                self.faults.add(other, message, key)
        for user in self.definition.steps:
            if fallback in user.dependencies:
                message = f"expected a dependency on {step.id!r}, whose fallback {fallback!r} is"
                self.faults.add(user, f"{message}, got one on the fallback", "dependencies")
        for branch in self.definition.branches:
            if fallback in (branch.step, *branch.then, *branch.otherwise):
                self.faults.add(branch, f"expected no fallback in a branch, got {fallback!r}")

    def _group(self, group: ParallelGroup) -> None:
        self._duration(group, group.deadline, "deadline")
        if group.deadline and group.on_failure != "partial":
            message = "expected a deadline only with on_failure: partial, which takes what is there by then"
            self.faults.add(group, message, "deadline")
        for index, step_id in enumerate(group.steps):
            if not self._known(group, step_id, "steps", index):
                continue
            first = self.group_of.setdefault(step_id, group)
            if first is not group or step_id in group.steps[:index]:
                self.faults.add(group, f"step {step_id!r} is already in the group {first.name!r}", "steps", index)
            if step_id in self.stand_ins:
                self.faults.add(group, f"expected no fallback in a group, got {step_id!r}", "steps", index)
            for needed in self.steps[step_id].dependencies:
                if needed in group.steps:
                    message = f"expected the steps of a group not to depend on each other: {step_id} -> {needed}"
                    self.faults.add(group, message, "steps", index)
        for branch in self.definition.branches:
            for step_id in (*branch.then, *branch.otherwise) if branch.step in group.steps else ():
                if step_id in group.steps:
                    message = f"expected the steps of a group not to depend on each other: {step_id} -> {branch.step}"
                    self.faults.add(branch, f"{message} (in the group {group.name!r})")
        if group.merge and self._known(group, group.merge, "merge") and group.merge in group.steps:
            self.faults.add(group, f"expected the merge step outside of the group, got {group.merge!r}", "merge")

    def _goes_round(self) -> bool:
        units = units_of(self.definition)
        requires: dict[str, tuple[str, ...]] = {unit.id: unit.requires for unit in units.values()}
        if found := circle(requires):
            message = f"dependencies go round in a circle: {' -> '.join(found)} (each waits for the next)"
            self.faults.add(self._node(found[0]), message, "dependencies")
            return True
        if not self.definition.in_line:
            return False
        seen: set[str] = set()
        for unit in units.values():
            for required in unit.requires:
                if required not in seen:
                    message = f"{unit.id!r} depends on {required!r}, which comes after it"
                    mode = f"in the mode {self.definition.mode} steps run in their order"
                    self.faults.add(self._node(unit.id), f"{message}; {mode}", "dependencies")
            seen.add(unit.id)
        return bool(self.faults)

    def _node(self, unit: str) -> Any:
        return self.steps.get(unit) or next(group for group in self.definition.groups if group.name == unit)

    def _references(self) -> None:
        """Conditions and parameters may only ask for the data of steps that are settled by then; what undoes a step may
        ask for that of any."""
        units = units_of(self.definition)
        places = {unit: 1 << place for place, unit in enumerate(units)}
        unit_of = {step.id: unit.id for unit in units.values() for step in unit.steps}
        for fallback in self.fallbacks.values():
            unit_of[fallback] = self._unit_of_fallback(fallback, unit_of)
        before = upstream(units, sequential=self.definition.in_line)
        for step in self.definition.steps:
            known = before[unit_of[step.id]]
            self._asked(step, "condition", mentioned(step.condition)[0], known, places, unit_of)
            self._asked(step, "parameters", self.parameters[step.id], known, places, unit_of)
            for asked in sorted(self.parameters[step.rollback.id]) if step.rollback is not None else ():
                self._known(step.rollback, asked, "parameters")
        for branch in self.definition.branches:
            known = before[unit_of[branch.step]] | places[unit_of[branch.step]]
            self._asked(branch, "condition", mentioned(branch.condition)[0], known, places, unit_of)

    def _asked(
        self,
        node: Any,
        key: str,
        steps: Iterable[str],
        known: int,
        places: Mapping[str, int],
        unit_of: Mapping[str, str],
    ) -> None:
        for asked in sorted(steps):
            if self._known(node, asked, key) and not known & places[unit_of[asked]]:
                message = f"step {asked!r} is asked for, which need not be settled by then"
                self.faults.add(node, f"{message}; depend on it", key)

    def _templates(self, step: WorkflowStep) -> None:
        try:
            parameters = Parameters(step.parameters)
        except TemplateError as error:
            self.faults.add(step, f"{error} in step {step.id!r}", "parameters")
            return
        self.parameters[step.id] = parameters.steps
        if "previous" in parameters.uses and self.definition.mode != "pipeline":
            self.faults.add(step, f"previous is known in a pipeline alone, step {step.id!r} asks for it", "parameters")
        if "results" in parameters.uses and not any(group.merge == step.id for group in self.definition.groups):
            said = f"results are known to the step that merges a group alone, step {step.id!r} asks for them"
            self.faults.add(step, said, "parameters")

    def _unit_of_fallback(self, fallback: str, unit_of: Mapping[str, str]) -> str:
        step = self.fallback_of[fallback]
        while step not in unit_of:
            step = self.fallback_of[step]
        return unit_of[step]
