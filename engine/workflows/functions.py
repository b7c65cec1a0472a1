"""Python functions that perform steps: how one is called with a step's parameters.

It gets the parameters by name, each converted to the type that its signature says (msgspec's rules, strictly), or is
refused with all that does not fit. What the parameters don't give, and the signature asks for by name, is added: `call`
(or whatever is annotated `StepCall`), `input`, `previous`, `results`. In a pipeline, and in the step that merges a
parallel group, the first parameter without a default that is still missing is what the step is there for: the data of
the step before, or the results.

A coroutine function runs on the event loop, a plain one in a thread.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, cast

import msgspec

from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters
from statewright.statecharts.facts import Json

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_GIVEN = ("input", "previous", "results")


class StepFunction:
    """A function with its signature, read once."""

    __slots__ = ("_defaulted", "_extra", "_types", "function", "is_async", "name", "positional")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Raises `TypeError` for what can't be called by name."""
        self.name = name
        self.function = function
        is_plain = inspect.isroutine(function) or inspect.isclass(function)
        target = function if is_plain else cast(Any, function).__call__
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(target)
        signature = inspect.signature(function)
        hints = _hints(target)
        self._types: dict[str, Any] = {}
        self._defaulted: set[str] = set()
        self.positional: list[str] = []
        self._extra = False
        for parameter in signature.parameters.values():
            if parameter.kind in _VARIADIC:
                self._extra |= parameter.kind is inspect.Parameter.VAR_KEYWORD
                continue
            self._types[parameter.name] = hints.get(parameter.name, Any)
            if parameter.default is not inspect.Parameter.empty:
                self._defaulted.add(parameter.name)
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                self.positional.append(parameter.name)

    def asks(self, parameters: Mapping[str, Json], subject: str) -> frozenset[str]:
        """Which of `input`, `previous`, `results` have to be known to call it with `parameters`."""
        names = {name for name in _GIVEN if name in self._types and name not in parameters}
        known = parameters.keys() | names | self._defaulted | {"call"}
        if subject and any(name not in known and kind is not StepCall for name, kind in self._types.items()):
            names.add(subject)
        return frozenset(names)

    def bind(self, call: StepCall, *, given: Mapping[str, Json], subject: str) -> Callable[[], Any]:
        """The call, ready to be made. `given`: what `input`, `previous`, `results` are; `subject`: which of them the
        step is there for, "" for none. Raises `InvalidParameters`."""
        found: dict[str, Any] = {}
        faults: list[str] = []
        missing: list[str] = []
        parameters = call.parameters
        for name, kind in self._types.items():
            if kind is StepCall or (name == "call" and name not in parameters):
                found[name] = call
            elif name in parameters:
                self._convert(name, parameters[name], kind, found, faults)
            elif name in _GIVEN and name in given:
                self._convert(name, given[name], kind, found, faults)
            elif name not in self._defaulted:
                missing.append(name)
        if missing and subject:
            name = missing.pop(0)
            self._convert(name, given[subject], self._types[name], found, faults)
        faults += [f"parameter '{name}' is missing" for name in missing]
        for name in parameters.keys() - self._types.keys():
            if self._extra:
                found[name] = parameters[name]
            else:
                faults.append(f"there is no parameter '{name}'")
        if faults:
            takes = ", ".join(self._types) or "no parameters"
            raise InvalidParameters(f"function '{self.name}' takes {takes}: {'; '.join(sorted(faults))}")
        first = [found.pop(name) for name in self.positional if name in found]
        return lambda: self.function(*first, **found)

    @staticmethod
    def _convert(name: str, value: Json, kind: Any, found: dict[str, Any], faults: list[str]) -> None:
        if kind is Any:
            found[name] = value
            return
        try:
            found[name] = msgspec.convert(value, kind, str_keys=True, dec_hook=_convert_path)
        except msgspec.ValidationError as error:
            faults.append(f"parameter '{name}': {error}")
        except (TypeError, NotImplementedError):  # A type that msgspec doesn't know says nothing about JSON.
            found[name] = value


def _convert_path(kind: type, value: Any) -> Any:
    if isinstance(value, str) and issubclass(kind, PurePath):
        return kind(value)
    raise NotImplementedError(kind)


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target)
    except Exception:  # Names that can't be found (under TYPE_CHECKING, say): then they are not checked.
        return {}
