"""What the plugins refuse, beside `PluginNotFound` and `InvalidParameters`, which the steps' errors define.

Those that are `PermanentError`s end a step as failed at once: trying again could not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from statewright.engine.calls import PermanentError
from statewright.engine.errors import AlreadyExistsError, InvalidError, UnavailableError
from statewright.engine.workflows.errors import DependencyNotSatisfied, PluginNotFound
from statewright.statecharts.errors import StatewrightError


class InvalidPlugin(InvalidError):
    """A class, module or entry point is no plugin: the message says which, what was expected and what is there."""


class PluginExists(AlreadyExistsError):
    """A plugin of this name is registered already."""


class PluginInUse(InvalidError):
    """A plugin can't be taken away while others depend on it. `dependents` are their names."""

    def __init__(self, message: str, dependents: Sequence[str]) -> None:
        super().__init__(message)
        self.dependents = tuple(dependents)


class PluginNotActive(UnavailableError):
    """The plugin is registered, but not activated yet, or about to go."""


class PluginFailed(StatewrightError):
    """A plugin's lifecycle function has raised. `plugin` is its name, `stage` the function ("activate", say), and
    `undone` the plugins that were deactivated and cleaned up because of it, in that order."""

    code: ClassVar[str] = "unavailable"

    def __init__(self, message: str, plugin: str, stage: str, undone: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.stage = stage
        self.undone = tuple(undone)


class PluginDependencyNotSatisfied(DependencyNotSatisfied):
    """Plugins need others that are not there, or not in that version. `unsatisfied` holds (plugin, dependency as
    written, the version that is there or "")."""

    def __init__(self, message: str, unsatisfied: Sequence[tuple[str, str, str]] = ()) -> None:
        super().__init__(message)
        self.unsatisfied = tuple(unsatisfied)


class CircularDependency(PluginDependencyNotSatisfied):
    """Plugins depend on each other in a circle. `circle` names them in order, the first once more at the end."""

    def __init__(self, circle: Sequence[str]) -> None:
        super().__init__(f"expected plugins that don't depend on each other in a circle, got {' -> '.join(circle)}")
        self.circle = tuple(circle)


class MethodNotFound(PluginNotFound):
    """The plugin has no such method; the message names those that it has."""


class InvalidResult(PermanentError):
    """A method has returned what is not JSON, or not what its signature says. It has been performed."""
