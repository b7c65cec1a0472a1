"""Plugins: classes and modules whose methods perform the steps of workflows, here or over NATS."""

from statewright.adapters.plugins.errors import (
    CircularDependency,
    InvalidPlugin,
    InvalidResult,
    MethodNotFound,
    PluginDependencyNotSatisfied,
    PluginExists,
    PluginFailed,
    PluginInUse,
    PluginNotActive,
)
from statewright.adapters.plugins.plugin import Plugin
from statewright.adapters.plugins.plugins import PluginInfo, Plugins
from statewright.adapters.plugins.serving import PluginServer, serve_plugin
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters, PluginNotFound

__all__ = [
    "CircularDependency",
    "InvalidParameters",
    "InvalidPlugin",
    "InvalidResult",
    "MethodNotFound",
    "Plugin",
    "PluginDependencyNotSatisfied",
    "PluginExists",
    "PluginFailed",
    "PluginInUse",
    "PluginInfo",
    "PluginNotActive",
    "PluginNotFound",
    "PluginServer",
    "Plugins",
    "StepCall",
    "serve_plugin",
]
