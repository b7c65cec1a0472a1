"""What plugins need of each other: read from `"document-parser >= 1.0, < 2"`, and put into an order. Pure.

Names are compared as Python's packages are: case, `-`, `_` and `.` make no difference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from statewright.adapters.plugins.errors import CircularDependency, InvalidPlugin, PluginDependencyNotSatisfied

if TYPE_CHECKING:
    from statewright.adapters.plugins.plugin import Plugin

_LOG = logging.getLogger("statewright.plugins")


class Dependency(NamedTuple):
    """A plugin that another needs, or makes use of if it is there. `key` is its name as it is compared."""

    text: str
    key: str
    specifier: SpecifierSet
    optional: bool

    def fits(self, plugin: Plugin) -> bool:
        """Whether `plugin` is of a version that will do. A pre-release will if it lies in the range."""
        return self.specifier.contains(plugin.version, prereleases=True)


class LoadOrder(NamedTuple):
    """Plugins, each after those that it depends on; and what optional dependencies are not there, by plugin's key."""

    plugins: tuple[Plugin, ...]
    warnings: Mapping[str, tuple[str, ...]]


def read_dependency(text: object, *, optional: bool, place: str) -> Dependency:
    """A dependency from its text. Raises `InvalidPlugin`, whose message begins with `place`."""
    expected = f"{place}: expected a dependency such as 'document-parser >= 1.0, < 2', got {text!r}"
    if not isinstance(text, str):
        raise InvalidPlugin(expected)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise InvalidPlugin(f"{expected}: {str(error).partition(chr(10))[0]}") from error
    if requirement.url or requirement.extras or requirement.marker:
        raise InvalidPlugin(f"{expected}: only a name and versions are understood")
    return Dependency(text, key_of(requirement.name), requirement.specifier, optional)


def key_of(name: str) -> str:
    """A plugin's name as it is compared."""
    return canonicalize_name(name)


def load_order(plugins: Iterable[Plugin]) -> LoadOrder:
    """The order in which to activate them; as they come, where nothing else is needed.

    Raises `PluginDependencyNotSatisfied` with all that is missing, and `CircularDependency`.
    """
    known = {plugin.key: plugin for plugin in plugins}
    missing: list[tuple[Plugin, Dependency]] = []
    warnings: dict[str, tuple[str, ...]] = {}
    for plugin in known.values():
        for dependency in unfit(plugin, known):
            if dependency.optional:
                said = f"goes without '{dependency.text}': {found(dependency, known)}"
                warnings[plugin.key] = (*warnings.get(plugin.key, ()), said)
            else:
                missing.append((plugin, dependency))
    if missing:
        said = "; ".join(
            f"plugin '{plugin.name}' wants '{need.text}', {found(need, known)}" for plugin, need in missing
        )
        there = ", ".join(f"{plugin.name} {plugin.version}" for plugin in known.values())
        unsatisfied = [
            (plugin.name, need.text, str(known[need.key].version) if need.key in known else "")
            for plugin, need in missing
        ]
        raise PluginDependencyNotSatisfied(f"{said} (registered: {there})", unsatisfied)
    graph = {plugin.key: [each.key for each in used(plugin, known)] for plugin in known.values()}
    try:
        order = tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        # It lists each one before the one that depends on it.
        raise CircularDependency([known[key].name for key in reversed(error.args[1])]) from None
    return LoadOrder(tuple(known[key] for key in order), warnings)


def used(plugin: Plugin, known: Mapping[str, Plugin]) -> tuple[Plugin, ...]:
    """Of `known` (by key), those that fit what `plugin` depends on."""
    missing = unfit(plugin, known)
    return tuple(known[each.key] for each in plugin.dependencies if each not in missing)


def unfit(plugin: Plugin, known: Mapping[str, Plugin]) -> tuple[Dependency, ...]:
    """What `plugin` depends on that is not in `known`, or not in that version."""
    return tuple(
        dependency
        for dependency in plugin.dependencies
        if (there := known.get(dependency.key)) is None or not dependency.fits(there)
    )


def found(dependency: Dependency, known: Mapping[str, Plugin]) -> str:
    """What is there in its place."""
    there = known.get(dependency.key)
    return "there is none" if there is None else f"there is {there.name} {there.version}"
