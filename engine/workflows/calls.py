"""What who performs a step is given: the call, and the port through which plugins and services take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from statewright.engine.calls import EffectCall
from statewright.statecharts.facts import Json


class StepCall(msgspec.Struct, frozen=True):
    """One attempt at one step of one execution.

    `parameters` are resolved. `effect_id` is the same in every attempt, so that what was done can be recognised;
    `attempt` counts from 1. `deadline_ns` (ns UTC) is when this attempt is given up. `metadata` is the step's. `effect`
    is the effect whose performance this is: `effect.heartbeat()`, `effect.cancelled`.
    """

    execution_id: str
    workflow: str
    step: str
    plugin: str = ""
    service: str = ""
    method: str = ""
    parameters: Mapping[str, Json] = {}
    effect_id: str = ""
    attempt: int = 1
    deadline_ns: int = 0
    metadata: Mapping[str, Json] = {}
    effect: EffectCall | None = None


class Caller(Protocol):
    """Performs steps: `adapters.plugins.Plugins`, `adapters.services.Services`."""

    async def call(self, call: StepCall) -> Any:
        """The step's data (JSON). Raises `PluginNotFound`, `ServiceNotFound`, `InvalidParameters` and other
        `PermanentError`s for what trying again can't help; anything else is tried again as the step says."""
        ...
