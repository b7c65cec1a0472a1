"""The door for configurations of the `transitions` library, as data or as a mapping with functions in it.

    turnstile = from_transitions(
        {
            "states": ["locked", {"name": "unlocked", "on_enter": "open_gate"}],
            "initial": "locked",
            "transitions": [["coin", "locked", "unlocked"], ["push", "unlocked", "locked"]],
        },
        name="turnstile",
    )

docs/coming-from-transitions.md tells what differs and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from statewright.statecharts.builder import struct_fields
from statewright.statecharts.chart import Chart


def from_transitions(
    config: Mapping[str, Any],
    *,
    name: str | None = None,
    version: str | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    context: type[msgspec.Struct] | Mapping[str, Any] | None = None,
    separator: str = "_",
    nested: bool | None = None,
) -> Chart:
    """The chart of a configuration that `Machine(**config)` or `HierarchicalMachine(**config)` takes.

    `functions` are what conditions name, `(context, event) -> bool`, and what callbacks name that change the context,
    `(context, event) -> fields`; other callbacks are effects. `context` is a msgspec Struct class or a mapping of
    fields to types. `name` and `version` are the definition's; without them the configuration's own hold, and "1".
    `separator` is `NestedState.separator`. `nested` says which of the two classes is meant; by default it is the
    hierarchical one if some state has states inside.

    Raises ChartError with all that can't be carried over, each with its path in the configuration.
    """
    fields = struct_fields(context, name or "") if isinstance(context, type) else context
    return Chart.from_transitions(
        config, functions, name=name, version=version, context=fields, separator=separator, nested=nested
    )
