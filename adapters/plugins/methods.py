"""Methods of plugins: read once from the function's signature, then called by name with parameters that fit it.

Invariants: a parameter reaches the function only as the type that it is annotated with (msgspec's rules, strictly: "3"
is no int), one that is not annotated as the JSON that it is. Whatever annotation can't be JSON is refused when the
plugin is registered, not when a step runs. What is annotated `StepCall` is the call itself, never a parameter.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from statewright.adapters.plugins.errors import InvalidPlugin, InvalidResult
from statewright.engine.errors import InvalidError
from statewright.engine.requests import as_json
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters
from statewright.statecharts.facts import Json

_EMPTY = inspect.Parameter.empty
_MISSING = object()


class Method:
    """A function with its signature. `signature` is how people see it: `greet(name: str, times: int = 1) -> str`."""

    __slots__ = ("_calls", "_extra", "_required", "_returns", "_types", "description", "is_async", "name", "signature")

    def __init__(self, name: str, function: Callable[..., Any], *, is_bound: bool, place: str) -> None:
        """is_bound: the first parameter (`self`, `cls`) is not one of the call. Raises `InvalidPlugin`, whose message
        begins with `place`."""
        where = f"{place}, method '{name}'"
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidPlugin(f"{where}: expected a function that returns its result, got one that yields")
        self.name = name
        self.is_async = inspect.iscoroutinefunction(function)
        self.description = summary(function)
        hints = _hints(function, where)
        parameters = [*inspect.signature(function).parameters.values()]
        if is_bound:
            if not parameters:
                raise InvalidPlugin(f"{where}: expected self as its first parameter, it has none")
            parameters = parameters[1:]
        parameters = [each.replace(annotation=hints.get(each.name, _EMPTY)) for each in parameters]
        self._calls = tuple(each.name for each in parameters if each.annotation is StepCall)
        shown = [each for each in parameters if each.name not in self._calls]
        self._types: dict[str, Any] = {}
        self._extra: Any = _MISSING
        for parameter in shown:
            self._read(parameter, where)
        self._required = frozenset(
            each.name for each in shown if each.default is _EMPTY and each.kind is not each.VAR_KEYWORD
        )
        self._returns = hints.get("return", Any)
        _check_type(self._returns, f"{where}: its result")
        returns = None if self._returns is type(None) else hints.get("return", inspect.Signature.empty)
        self.signature = f"{name}{inspect.Signature(shown, return_annotation=returns)}"

    def _read(self, parameter: inspect.Parameter, where: str) -> None:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise InvalidPlugin(f"{where}: expected parameters that can be given by name, got '{parameter}'")
        kind = Any if parameter.annotation is _EMPTY else parameter.annotation
        _check_type(kind, f"{where}: parameter '{parameter.name}'")
        if parameter.kind is parameter.VAR_KEYWORD:
            self._extra = kind
        else:
            self._types[parameter.name] = kind

    def bind(self, call: StepCall, owner: str) -> dict[str, Any]:
        """The arguments by name. Raises `InvalidParameters` with all that does not fit."""
        given = call.parameters
        if not isinstance(given, Mapping):
            raise InvalidParameters(
                f"{owner}.{self.signature}: expected parameters by name, got {type(given).__name__}"
            )
        arguments: dict[str, Any] = dict.fromkeys(self._calls, call)
        faults = [f"parameter '{name}' is missing" for name in self._types if name in self._required - given.keys()]
        for name, value in given.items():
            kind = self._types.get(name, self._extra)
            if kind is _MISSING or name in self._calls:
                faults.append(f"there is no parameter '{name}'")
                continue
            try:
                arguments[name] = msgspec.convert(value, kind, strict=True, str_keys=True)
            except msgspec.ValidationError as error:
                faults.append(f"parameter '{name}': {error}")
        if faults:
            raise InvalidParameters(f"{owner}.{self.signature}: {'; '.join(faults)}")
        return arguments

    def check(self, result: Any, owner: str) -> Json:
        """`result` as JSON. Raises `InvalidResult` if it can't be, or is not what the signature says; `TooLargeError`
        if it is too large to be recorded."""
        said = f"the result of {owner}.{self.signature}"
        try:
            data, _ = as_json(said, result)
            if self._returns is not Any:
                msgspec.convert(data, self._returns, strict=True, str_keys=True)
        except InvalidError as error:
            raise InvalidResult(str(error)) from error
        except msgspec.ValidationError as error:
            raise InvalidResult(f"{said} is not what it says: {error}") from error
        return data


def summary(source: Any) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(source) or "").partition("\n")[0].strip()


def _hints(function: Callable[..., Any], where: str) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # Whatever evaluating an annotation raises.
        raise InvalidPlugin(f"{where}: an annotation can't be resolved: {error}") from error


def _check_type(kind: Any, what: str) -> None:
    """Whether msgspec knows it; found out by asking for its schema, which visits all of it."""
    try:
        msgspec.json.schema(kind)
    except (TypeError, RecursionError) as error:
        shown = inspect.formatannotation(kind)
        raise InvalidPlugin(f"{what}: expected a type that JSON can be read as, got {shown}") from error
