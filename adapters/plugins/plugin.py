"""A plugin as it is read from a class, a module or an object: name, version, dependencies, lifecycle, methods.

What can be called is bounded: the public functions written in the class or module itself, or, if it has a `methods`
attribute, exactly those that it lists. Never lifecycle functions, names with a leading underscore, properties, classes,
or functions that were imported.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from packaging.version import InvalidVersion, Version

from statewright.adapters.plugins.dependencies import Dependency, key_of, read_dependency
from statewright.adapters.plugins.errors import InvalidPlugin, MethodNotFound
from statewright.adapters.plugins.methods import Method, summary

LIFECYCLE = ("initialise", "activate", "deactivate", "clean_up")
"""In the order in which they are called. Each may be a plain function or a coroutine function, or missing."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,126}[A-Za-z0-9])?")
_MISTAKEN = {"initialize": "initialise", "cleanup": "clean_up", "cleanUp": "clean_up"}


class Plugin:
    """What was read. `key` is the name as it is compared, `origin` where it comes from (a distribution, or a module and
    a class)."""

    def __init__(self, source: Any, *, name: str = "", version: str = "", origin: str = "") -> None:
        """source: a class, a module, or an object of a class. name, version: what they are unless it says so itself.
        Raises `InvalidPlugin`."""
        if isinstance(source, str | bytes | int | float | None | dict | list | tuple) or inspect.isroutine(source):
            raise InvalidPlugin(f"expected a plugin (a class, a module or an object of a class), got {source!r}")
        self._source = source
        self._home = source if isinstance(source, type | ModuleType) else type(source)
        where = _place(self._home)
        self.origin = origin or where
        self.name = _name(source, name, f"plugin {where}")
        self.key = key_of(self.name)
        self._place = f"plugin '{self.name}' ({where})"
        self.version = _version(source, version, self._place)
        said = getattr(source, "description", "")
        self.description = said if isinstance(said, str) and said else summary(self._home)
        self.dependencies = tuple(self._read_dependencies())
        self.methods: Mapping[str, Method] = {
            each: Method(each, function, is_bound=is_bound, place=self._place)
            for each, function, is_bound in self._callable()
        }
        self._takes_dependencies = self._check_lifecycle()
        if isinstance(source, type):
            self._check_constructor(source)

    def __repr__(self) -> str:
        return f"<Plugin {self.name} {self.version} from {self.origin}>"

    def make(self) -> Any:
        """The object whose functions are called: a new one of a class, else the module or the object itself."""
        return self._source() if isinstance(self._source, type) else self._source

    def method(self, name: str) -> Method:
        """Raises `MethodNotFound` with the names of those that there are."""
        if name in self.methods:
            return self.methods[name]
        there = ", ".join(method.signature for method in self.methods.values()) or "none"
        raise MethodNotFound(f"plugin '{self.name}' {self.version} has no method {name!r}; it has {there}")

    def hook(self, target: Any, stage: str, dependencies: Mapping[str, Any]) -> Callable[[], Any] | None:
        """The lifecycle function `stage` of `target`, ready to be called; None if there is none."""
        if _own_function(self._home, stage) is None:
            return None
        function = getattr(target, stage)
        if stage == "initialise" and self._takes_dependencies:
            return lambda: function(dependencies)
        return lambda: function()

    def _read_dependencies(self) -> Iterator[Dependency]:
        seen: dict[str, str] = {}
        for attribute, optional in (("dependencies", False), ("optional_dependencies", True)):
            texts = getattr(self._source, attribute, ())
            if not isinstance(texts, list | tuple):
                raise InvalidPlugin(f"{self._place}: expected {attribute} to be a list of strings, got {texts!r}")
            for index, text in enumerate(texts):
                place = f"{self._place}, {attribute}[{index}]"
                dependency = read_dependency(text, optional=optional, place=place)
                if dependency.key == self.key:
                    raise InvalidPlugin(f"{place}: a plugin can't depend on itself, got {text!r}")
                if dependency.key in seen:
                    raise InvalidPlugin(f"{place}: {text!r} is there already, as {seen[dependency.key]!r}")
                seen[dependency.key] = dependency.text
                yield dependency

    def _callable(self) -> Iterator[tuple[str, Callable[..., Any], bool]]:
        """(name, function, whether its first parameter is bound) of what steps may call."""
        listed = getattr(self._source, "methods", None)
        if listed is None or inspect.isroutine(listed):
            for name in vars(self._home):
                function = _own_function(self._home, name, inherited=False)
                if function is not None and not name.startswith("_") and name not in LIFECYCLE:
                    if name in _MISTAKEN:
                        raise InvalidPlugin(f"{self._place}: '{name}' is called '{_MISTAKEN[name]}' here")
                    yield name, *function
            return
        if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
            raise InvalidPlugin(f"{self._place}: expected methods to be a list of names, got {listed!r}")
        for name in dict.fromkeys(listed):
            if name.startswith("_") or name in LIFECYCLE:
                raise InvalidPlugin(f"{self._place}, methods: '{name}' is not for steps to call")
            function = _own_function(self._home, name)
            if function is None:
                raise InvalidPlugin(f"{self._place}, methods: there is no function '{name}' of its own")
            yield name, *function

    def _check_lifecycle(self) -> bool:
        """Whether `initialise` takes the dependencies."""
        taken = {}
        for stage in LIFECYCLE:
            found = _own_function(self._home, stage)
            if found is None:
                if inspect.getattr_static(self._home, stage, None) is not None:
                    raise InvalidPlugin(f"{self._place}: expected {stage} to be a function of its own")
                continue
            function, is_bound = found
            needed = [*inspect.signature(function).parameters.values()][is_bound:]
            taken[stage] = len(needed)
            if len(needed) > (stage == "initialise") or any(each.kind is each.KEYWORD_ONLY for each in needed):
                takes = "at most one parameter, the dependencies" if stage == "initialise" else "no parameters"
                raise InvalidPlugin(f"{self._place}: expected {stage} to take {takes}, it takes {len(needed)}")
        return bool(taken.get("initialise"))

    def _check_constructor(self, source: type) -> None:
        try:
            parameters = inspect.signature(source).parameters.values()
        except ValueError:  # One that is not written in Python.
            return
        needed = [
            each.name
            for each in parameters
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
        if needed:
            raise InvalidPlugin(
                f"{self._place}: expected a class that can be called without arguments, it needs {', '.join(needed)} "
                "(or register an object of it)"
            )


def _own_function(
    home: type | ModuleType, name: str, *, inherited: bool = True
) -> tuple[Callable[..., Any], bool] | None:
    """The function that is written as `name` in the class (or a base, if `inherited`) or module, and whether its first
    parameter is bound; None for what is imported, or no function."""
    if isinstance(home, ModuleType):
        found = vars(home).get(name)
        if isinstance(found, FunctionType) and found.__module__ == home.__name__:
            return found, False
        return None
    for owner in home.__mro__ if inherited else (home,):
        if name not in vars(owner):
            continue
        found = vars(owner)[name]
        function = found.__func__ if isinstance(found, staticmethod | classmethod) else found
        if isinstance(function, FunctionType) and function.__module__ == owner.__module__:
            return function, not isinstance(found, staticmethod)
        return None
    return None


def _place(home: type | ModuleType) -> str:
    return home.__name__ if isinstance(home, ModuleType) else f"{home.__module__}.{home.__qualname__}"


def _name(source: Any, default: str, place: str) -> str:
    said = getattr(source, "name", None) or default
    if not isinstance(said, str) or not _NAME.fullmatch(said):
        raise InvalidPlugin(
            f"{place}: expected a name of 1 to 128 letters, digits, '-' and '_', got {said or 'no name'!r}"
        )
    if default and key_of(default) != key_of(said):
        raise InvalidPlugin(f"{place}: its entry point is called '{default}', but it calls itself '{said}'")
    return said


def _version(source: Any, default: str, place: str) -> Version:
    said = getattr(source, "version", None) or default
    try:
        return Version(said)
    except (InvalidVersion, TypeError) as error:
        raise InvalidPlugin(f"{place}: expected a version such as '1.2.0', got {said or 'no version'!r}") from error
