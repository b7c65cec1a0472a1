"""Finding plugins that are installed: the entry points of group `statewright.plugins`.

    [project.entry-points."statewright.plugins"]
    greeter = "acme_greeter:Greeter"

Looking imports what the entry points name, and calls nothing of it. Name and version default to the entry point's name
and its distribution's version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, NamedTuple

import msgspec

from statewright.adapters.plugins.dependencies import found, key_of, load_order, unfit
from statewright.adapters.plugins.errors import CircularDependency, InvalidPlugin, PluginDependencyNotSatisfied
from statewright.adapters.plugins.plugin import Plugin
from statewright.engine.workflows.errors import PluginNotFound

GROUP = "statewright.plugins"


class Found(NamedTuple):
    """An entry point, and the plugin behind it or why there is none. `origin` is its distribution with version."""

    name: str
    origin: str
    version: str
    plugin: Plugin | None
    problem: InvalidPlugin | None = None


class InstalledPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an installed plugin without activating it. `state`: "usable" if it could be activated with the
    others that are installed; else "broken", with the `problem`. `methods` are signatures."""

    name: str
    version: str
    state: Literal["usable", "broken"]
    origin: str
    description: str = ""
    dependencies: tuple[str, ...] = ()
    optional_dependencies: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    problem: str = ""
    warnings: tuple[str, ...] = ()


def installed_plugins(group: str = GROUP) -> tuple[InstalledPlugin, ...]:
    """What is installed, by name, and what is wrong with it."""
    everything = find_plugins(group)
    known = {each.plugin.key: each.plugin for each in everything if each.plugin is not None}
    circle: tuple[str, ...] = ()
    try:
        load_order(known.values())
    except CircularDependency as error:
        circle = error.circle
    except PluginDependencyNotSatisfied:
        pass  # Told of each one below.
    return tuple(_installed(each, known, circle) for each in everything)


def _installed(each: Found, known: Mapping[str, Plugin], circle: tuple[str, ...]) -> InstalledPlugin:
    plugin = each.plugin
    if plugin is None:
        return InstalledPlugin(
            name=each.name, version=each.version, state="broken", origin=each.origin, problem=str(each.problem)
        )
    lacking = unfit(plugin, known)
    problems = [f"wants '{need.text}', {found(need, known)}" for need in lacking if not need.optional]
    if plugin.name in circle:
        problems.append(f"depends on itself: {' -> '.join(circle)}")
    return InstalledPlugin(
        name=plugin.name,
        version=str(plugin.version),
        state="broken" if problems else "usable",
        origin=plugin.origin,
        description=plugin.description,
        dependencies=tuple(need.text for need in plugin.dependencies if not need.optional),
        optional_dependencies=tuple(need.text for need in plugin.dependencies if need.optional),
        methods=tuple(method.signature for method in plugin.methods.values()),
        problem="; ".join(problems),
        warnings=tuple(f"goes without '{need.text}': {found(need, known)}" for need in lacking if need.optional),
    )


def find_plugins(group: str = GROUP, only: Collection[str] | None = None) -> tuple[Found, ...]:
    """What is installed, by name; of `only` those entry points, the others are not even imported. Raises nothing for
    what is broken: that is in `problem`; `PluginNotFound` for one of `only` that isn't there."""
    # A folder that is on the path twice shows the same distribution twice.
    points = {(entry.name, _origin(entry)): entry for entry in reversed([*entry_points(group=group)])}
    if only is not None:
        _check_installed(only, {name for name, _ in points})
        wanted = {key_of(name) for name in only}
        points = {place: entry for place, entry in points.items() if key_of(place[0]) in wanted}
    entries = {place: _load(entry) for place, entry in points.items()}
    by_key: dict[str, Found] = {}
    for each in sorted(entries.values(), key=lambda one: (key_of(one.name), one.origin)):
        first = by_key.setdefault(key_of(each.name), each)
        if first is not each:
            said = f"expected one installed plugin '{each.name}', got one of {first.origin} and one of {each.origin}"
            by_key[key_of(each.name)] = first._replace(plugin=None, problem=InvalidPlugin(said))
    return tuple(by_key.values())


def _check_installed(only: Collection[str], installed: set[str]) -> None:
    known = {key_of(name) for name in installed}
    if missing := sorted(name for name in only if key_of(name) not in known):
        there = ", ".join(sorted(installed)) or "none"
        raise PluginNotFound(f"expected installed plugins ({there}), got {', '.join(missing)}")


def _load(entry: EntryPoint) -> Found:
    origin = _origin(entry)
    version = entry.dist.version if entry.dist is not None else ""
    try:
        source = entry.load()
    except (Exception, SystemExit) as error:  # It is somebody else's code: whatever importing it raises.
        said = f"the entry point {entry.name} = {entry.value!r} of {origin} can't be loaded"
        problem = InvalidPlugin(f"{said}: {type(error).__name__}: {error}")
        problem.__cause__ = error
        return Found(entry.name, origin, version, None, problem)
    try:
        plugin = Plugin(source, name=entry.name, version=version, origin=origin)
    except InvalidPlugin as error:
        problem = InvalidPlugin(f"the entry point {entry.name} = {entry.value!r} of {origin}: {error}")
        problem.__cause__ = error
        return Found(entry.name, origin, version, None, problem)
    return Found(plugin.name, origin, str(plugin.version), plugin)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "no distribution"
