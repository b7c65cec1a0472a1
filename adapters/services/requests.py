"""What is asked of services: a chart's `call` effect as the call of a step, and what a step asks of its service."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from statewright.adapters.services.selection import Criteria
from statewright.engine.calls import EffectCall, PermanentError
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters

CRITERIA = "criteria"
"""In a step's metadata: the fields of `Criteria` for the service that performs it."""


def from_effect(effect: EffectCall) -> StepCall:
    """Raises `PermanentError` for a name that isn't `<service>.<method>`."""
    service, _, method = effect.name.rpartition(".")
    if not service or not method:
        raise PermanentError(f"expected a call to name <service>.<method>, got {effect.name!r}")
    parameters: Any = effect.data  # Whatever a chart says goes out on the bus; a method here takes a map.
    return StepCall(
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


def criteria_of(call: StepCall) -> Criteria | None:
    """What the step's metadata asks of the service, None if nothing. Raises `InvalidParameters`."""
    written = call.metadata.get(CRITERIA)
    if written is None:
        return None
    try:
        criteria = msgspec.convert(written, Criteria)
    except msgspec.ValidationError as error:
        raise InvalidParameters(f"the criteria of step '{call.step}': {error}") from None
    return replace(criteria, method=criteria.method or call.method)
