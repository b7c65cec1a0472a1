"""Resolving parameters where something is performed with them: what can't be resolved is final, since the facts that
they are resolved from stay what they are."""

from __future__ import annotations

from statewright.engine.workflows.errors import DependencyNotSatisfied, InvalidParameters
from statewright.statecharts.facts import Json
from statewright.statecharts.workflows.parameters import Facts, NoData, Parameters, TemplateError


def resolved(parameters: Parameters, facts: Facts) -> dict[str, Json]:
    """Their values. Raises `InvalidParameters`, and `DependencyNotSatisfied` for a step without data."""
    try:
        return parameters.resolve(facts)
    except NoData as error:
        raise DependencyNotSatisfied(str(error)) from error
    except TemplateError as error:
        raise InvalidParameters(str(error)) from error
