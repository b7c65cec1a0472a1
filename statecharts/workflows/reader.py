"""Reads the written form of a workflow (a plain tree, as YAML, JSON and the Python door give it).

Every fault of shape is found in one reading; what a workflow means (dependencies, conditions, durations) is the
validation's business. Python functions may stand where the form has a function's name; they are registered under their
`__name__`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from statewright.statecharts.actions_reader import ActionsReader
from statewright.statecharts.places import Faults, Path
from statewright.statecharts.workflows import model

NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
STEP_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}", re.ASCII)
RESERVED = frozenset(("running", "rolling_back", "prepared", "completed", "failed", "cancelled"))
"""States of the chart that a workflow compiles to."""
_GROUP_RESERVED = RESERVED | {"lane", "join"}
"""Regions begin with these; a group's end, `done.state.<group>`, would be told at theirs, too."""

WORKFLOW_KEYS = frozenset(("$schema", *model.WorkflowDefinition.__struct_fields__))
_STEP_TEXTS = ("name", "description", "plugin", "service", "method", "condition")
_DURATIONS = ("timeout", "retry_delay", "retry_delay_max")
_NUMBER_MAX = 1e300
_COUNT_MAX = 999_999
_WORD = re.compile(r"[^\s.*>]+")
_WORDS = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
"""What a subject on the bus can be made of."""


def read_workflow(tree: Any, faults: Faults) -> tuple[model.WorkflowDefinition | None, dict[str, Callable[..., Any]]]:
    """The workflow (None if it cannot even be put together) and the functions that stood in the tree."""
    reader = _Reader(faults)
    return reader.workflow(tree), reader.functions


class _Reader(ActionsReader):
    def workflow(self, tree: Any) -> model.WorkflowDefinition | None:
        if not isinstance(tree, Mapping):
            self.fault((), f"expected a workflow, a mapping with id and steps, got {self.kind(tree)}")
            return None
        self.known(tree, set(WORKFLOW_KEYS), (), "the workflow")
        workflow_id = self.text(tree, "id", ())
        if not NAME.fullmatch(workflow_id):
            self.fault(("id",), f"expected an id of 1 to 128 of A-Z a-z 0-9 _ -, got {tree.get('id')!r}")
        steps = self._steps(tree.get("steps"), ("steps",))
        if not steps:
            self.fault(("steps",), "expected at least one step, got none")
        workflow = model.WorkflowDefinition(
            id=workflow_id,
            name=self.text(tree, "name", ()),
            description=self.text(tree, "description", ()),
            version=self._version(tree),
            mode=self.choice(tree.get("mode", "sequential"), typing.get_args(model.Mode), ("mode",)),
            timeout=self._duration(tree, "timeout", "", ()),
            concurrency=self._count(tree, "concurrency", (), None, 1),
            steps=steps,
            branches=self._conditional(tree.get("branches"), ("branches",)),
            groups=self._parallel(tree.get("groups"), ("groups",)),
            metadata=self._mapping(tree, "metadata", ()),
        )
        self.places.put(workflow, (), "")
        return workflow

    def _steps(self, tree: Any, path: Path) -> tuple[model.WorkflowStep, ...]:
        if isinstance(tree, Mapping):
            return tuple(self._step(item, (*path, str(key)), str(key)) for key, item in tree.items())
        if not isinstance(tree, list | tuple):
            if tree is not None:
                self.fault(path, f"expected a list of steps, or a mapping of ids to steps, got {self.kind(tree)}")
            return ()
        steps = []
        for index, item in enumerate(tree):
            step_id = item.get("id") if isinstance(item, Mapping) else None
            if not isinstance(step_id, str):
                self.fault((*path, index), "expected each step of a list to be a mapping with an id")
                continue
            # Without lines to look up, the id says more than the index.
            steps.append(self._step(item, (*path, index if self.places.has_lines else step_id), step_id))
        return tuple(steps)

    def _step(self, tree: Any, path: Path, step_id: str) -> model.WorkflowStep:
        outer, self.state = self.state, step_id
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a mapping that says what step {step_id!r} does, got {self.kind(tree)}")
            tree = {}
        if not STEP_ID.fullmatch(step_id):
            self.fault(path, f"expected a step id such as load_data (letters, digits, _ and -), got {step_id!r}")
        elif step_id in RESERVED:
            self.fault(path, f"expected a step id that the chart has no state of, got {step_id!r}")
        self.known(tree, set(model.WorkflowStep.__struct_fields__), path, f"step {step_id!r}")
        if tree.get("id", step_id) != step_id:
            self.fault((*path, "id"), f"expected no id, or the key {step_id!r}, got {tree['id']!r}")
        step = model.WorkflowStep(
            id=step_id,
            **{key: self.text(tree, key, path) for key in _STEP_TEXTS},
            function=self._function(tree, path),
            parameters=self._mapping(tree, "parameters", path),
            dependencies=self.strings(tree.get("dependencies"), (*path, "dependencies")),
            join=self.choice(tree.get("join", "all"), typing.get_args(model.Join), (*path, "join")),
            **{key: self._duration(tree, key, _default(key), path) for key in _DURATIONS},
            max_retries=self._count(tree, "max_retries", path, 3, 0),
            retry_backoff=self._number(tree, "retry_backoff", path, 2.0),
            critical=self._bool(tree, "critical", path, default=True),
            on_error=self._on_error(tree.get("on_error"), (*path, "on_error")),
            rollback=self._rollback(tree.get("rollback"), (*path, "rollback"), step_id),
            compensate_failure=self._bool(tree, "compensate_failure", path, default=False),
            metadata=self._mapping(tree, "metadata", path),
        )
        self._performed(step, path)
        self.places.put(step, path, step_id)
        self.state = outer
        return step

    def _performed(self, step: model.WorkflowStep, path: Path) -> None:
        given = [key for key in ("function", "plugin", "service") if getattr(step, key)]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            self.fault(path, f"expected one of function, plugin and service in step {step.id!r}, got {said}")
        elif given != ["function"] and not step.method:
            self.fault(path, f"expected the method of the {given[0]} in step {step.id!r}, which is missing")
        elif given == ["function"] and step.method:
            self.fault((*path, "method"), "expected no method beside a function")
        elif given != ["function"]:
            for key, form in ((given[0], _WORDS), ("method", _WORD)):
                if not form.fullmatch(said := getattr(step, key)):
                    self.fault((*path, key), f"expected the name of a {key}, without blanks, * and >, got {said!r}")

    def _function(self, tree: Mapping[str, Any], path: Path) -> str:
        given = tree.get("function", "")
        if isinstance(given, str):
            return given
        if not callable(given):
            self.fault((*path, "function"), f"expected a function or the name of one, got {self.kind(given)}")
            return "function"
        return self.function(given, (*path, "function"))

    def _rollback(self, tree: Any, path: Path, of: str) -> model.WorkflowStep | None:
        if tree is None:
            return None
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a mapping that says how step {of!r} is undone, got {self.kind(tree)}")
            return None
        step_id = tree.get("id", f"undo_{of}")
        for key in ("dependencies", "join", "condition", "rollback", "compensate_failure", "on_error"):
            if tree.get(key):
                self.fault((*path, key), f"expected no {key} of a rollback step, which runs when its step is undone")
        plain = {key: value for key, value in tree.items() if key not in ("dependencies", "rollback", "on_error")}
        return self._step(plain, path, step_id if isinstance(step_id, str) else f"undo_{of}")

    def _on_error(self, tree: Any, path: Path) -> model.OnError:
        if tree is None:
            return model.OnError()
        tree = {"action": tree} if isinstance(tree, str) else tree
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected abort, retry, skip, continue or {{fallback: step}}, got {self.kind(tree)}")
            return model.OnError()
        self.known(tree, set(model.OnError.__struct_fields__), path, "on_error")
        fallback = self.text(tree, "fallback", path)
        action = tree.get("action", "fallback" if fallback else "abort")
        action = self.choice(action, typing.get_args(model.ErrorAction), (*path, "action"))
        if (action == "fallback") != bool(fallback):
            self.fault(path, f"expected the fallback step with the action fallback alone, got {action} {fallback!r}")
            action, fallback = "abort", ""
        on_error = model.OnError(
            action=action,
            fallback=fallback,
            max_retries=self._count(tree, "max_retries", path, None, 0),
            retry_delay=self._duration(tree, "retry_delay", "", path),
            retry_backoff=self._number(tree, "retry_backoff", path, None),
            retry_delay_max=self._duration(tree, "retry_delay_max", "", path),
        )
        self.places.put(on_error, path, self.state)
        return on_error

    def _conditional(self, tree: Any, path: Path) -> tuple[model.Branch, ...]:
        branches = []
        for item, place in self.items(tree, path):
            if not isinstance(item, Mapping):
                self.fault(place, f"expected a mapping with step, condition and then, got {self.kind(item)}")
                continue
            self.known(item, set(model.Branch.__struct_fields__), place, "the branch")
            branch = model.Branch(
                step=self._needed(item, "step", place),
                condition=self._needed(item, "condition", place),
                then=self.strings(item.get("then"), (*place, "then")),
                otherwise=self.strings(item.get("otherwise"), (*place, "otherwise")),
            )
            if not (branch.then or branch.otherwise):
                self.fault(place, "expected steps in 'then' or 'otherwise', got none")
            self.places.put(branch, place, "")
            branches.append(branch)
        return tuple(branches)

    def _parallel(self, tree: Any, path: Path) -> tuple[model.ParallelGroup, ...]:
        groups = []
        for item, place in self.items(tree, path):
            if not isinstance(item, Mapping):
                self.fault(place, f"expected a mapping with name and steps, got {self.kind(item)}")
                continue
            self.known(item, set(model.ParallelGroup.__struct_fields__), place, "the group")
            name = self._needed(item, "name", place)
            if name and (not STEP_ID.fullmatch(name) or name in _GROUP_RESERVED):
                self.fault(
                    (*place, "name"), f"expected a name like a step's id that the chart has no state of, got {name!r}"
                )
            modes = typing.get_args(model.OnFailure)
            group = model.ParallelGroup(
                name=name,
                steps=self.strings(item.get("steps"), (*place, "steps")),
                merge=self.text({"merge": item.get("merge") or ""}, "merge", place),
                on_failure=self.choice(item.get("on_failure", "cancel"), modes, (*place, "on_failure")),
                deadline=self._duration(item, "deadline", "", place),
            )
            if not group.steps:
                self.fault(place, f"expected steps in the group {name!r}, got none")
            self.places.put(group, place, "")
            groups.append(group)
        return tuple(groups)

    # -- fields --------------------------------------------------------------------------------------------------

    def _needed(self, tree: Mapping[str, Any], key: str, path: Path) -> str:
        text = self.text(tree, key, path)
        if not text and isinstance(tree.get(key, ""), str):
            self.fault(path, f"expected {key!r}, which is missing")
        return text

    def _version(self, tree: Mapping[str, Any]) -> str:
        version = tree.get("version", "1")
        if isinstance(version, int) and not isinstance(version, bool):
            return str(version)
        if not isinstance(version, str) or not 1 <= len(version) <= 128:
            self.fault(("version",), f"expected a version as a text (put it in quotes), got {version!r}")
            return "1"
        return version

    def _mapping(self, tree: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
        value = tree.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault((*path, key), f"expected a mapping, got {self.kind(value)}")
            return {}
        read = self.json(value, (*path, key))
        return read if isinstance(read, dict) else {}

    def _duration(self, tree: Mapping[str, Any], key: str, default: str, path: Path) -> str:
        value = tree.get(key)
        if value is None or value == "":
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.fault((*path, key), f"expected a duration such as 30s, PT30S or milliseconds, got {value!r}")
            return default
        return self.delay(value, (*path, key), default or "1s")

    def _count(self, tree: Mapping[str, Any], key: str, path: Path, default: Any, least: int) -> Any:
        value = tree.get(key)
        if value is None:
            return default
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= _COUNT_MAX:
            self.fault((*path, key), f"expected a whole number from {least} to {_COUNT_MAX}, got {value!r}")
            return default
        return value

    def _number(self, tree: Mapping[str, Any], key: str, path: Path, default: Any) -> Any:
        value = tree.get(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not 1 <= value <= _NUMBER_MAX:
            self.fault((*path, key), f"expected a number of at least 1, got {value!r}")
            return default
        return float(value)

    def _bool(self, tree: Mapping[str, Any], key: str, path: Path, *, default: bool) -> bool:
        value = tree.get(key, default)
        if not isinstance(value, bool):
            self.fault((*path, key), f"expected true or false, got {value!r}")
            return default
        return value


def _default(key: str) -> str:
    return {"timeout": "60s", "retry_delay": "1s", "retry_delay_max": "60s"}[key]
