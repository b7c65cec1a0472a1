"""An instance as of a moment: the fold of its facts up to then. Nothing is run again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from statewright.engine.errors import NotFoundError
from statewright.engine.events import AnyFact
from statewright.engine.instance import Instance, fold


class Replay(msgspec.Struct, frozen=True):
    """An instance as of a moment, and the facts that brought it there."""

    instance: Instance
    facts: list[AnyFact]


def replayed(instance_id: str, facts: Iterable[AnyFact], at: int | None) -> Replay:
    """As of the last of `facts` that is not later than `at` (ns UTC). Raises `NotFoundError` if there is none."""
    seen = [fact for fact in facts if at is None or fact.time <= at]
    instance = fold(seen)
    if instance is None:
        raise NotFoundError(f"instance '{instance_id}' had not started then")
    return Replay(instance, seen)
