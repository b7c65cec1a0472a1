"""From what the engine asks to what a service is asked: a step's call, or a chart's `call` effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from msgspec.structs import replace as replaced

from statewright.adapters.services.members import Request
from statewright.adapters.services.selection import Criteria
from statewright.engine.calls import EffectCall, PermanentError
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters

CRITERIA = "criteria"
"""In a step's metadata: the fields of `Criteria` for the service that performs it."""


def from_step(call: StepCall) -> Request:
    """The effect keeps the step's own terms, pulse and identity."""
    name = f"{call.service}.{call.method}"
    effect = call.effect or EffectCall(
        call.effect_id, call.execution_id, name, "call", None, call.attempt, deadline=call.deadline_ns
    )
    return Request(call.method, call, replace(effect, name=name, kind="call", data=call.parameters))


def from_effect(effect: EffectCall) -> Request:
    """Raises `PermanentError` for a name that isn't `<service>.<method>`."""
    service, _, method = effect.name.rpartition(".")
    if not service or not method:
        raise PermanentError(f"expected a call to name <service>.<method>, got {effect.name!r}")
    parameters: Any = {} if effect.data is None else effect.data
    call = StepCall(
        execution_id=effect.instance_id,
        workflow="",
        step="",
        service=service,
        method=method,
        parameters=parameters,
        effect_id=effect.effect_id,
        attempt=effect.attempt,
        deadline_ns=effect.deadline,
        effect=effect,
    )
    return Request(method, call, effect)


def criteria_of(call: StepCall) -> Criteria | None:
    """What the step's metadata asks of the service, None if nothing. Raises `InvalidParameters`."""
    written = call.metadata.get(CRITERIA)
    if written is None:
        return None
    try:
        criteria = msgspec.convert(written, Criteria)
    except msgspec.ValidationError as error:
        raise InvalidParameters(f"the criteria of step '{call.step}': {error}") from None
    return replaced(criteria, method=criteria.method or call.method)
