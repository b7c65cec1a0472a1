"""What the standard library's `logging` is told of facts and batches: their ids are fields, passed as `extra`.

Invariant: nothing is computed for a line that nobody wants; who calls asks the logger first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from statewright.engine.events import Fact, Trigger
from statewright.engine.instance import timer_of
from statewright.engine.requests import effect_of

LOGGED_MAX = 10
"""How many instances a line of the log names."""


def log_facts(log: logging.Logger, facts: Sequence[Fact]) -> None:
    """A line for each of the facts that have become durable."""
    for fact in facts:
        ids = {"instance": fact.instance_id}
        trigger: Trigger | None = getattr(fact, "trigger", None)
        if trigger is not None:
            ids["event"] = trigger.id
            if trigger.kind == "timer":
                ids["timer"] = timer_of(trigger)
            elif trigger.kind == "effect":
                ids["effect"] = effect_of(trigger.id)
        kind = fact.__struct_config__.tag
        log.debug("recorded %s as sequence %d", kind, fact.sequence, extra=ids)


def ids_of_many(instance_ids: Iterable[str]) -> dict[str, str]:
    """The field of a line about a batch: its instances, the first of them if they are many."""
    instances = list(dict.fromkeys(instance_ids))
    more = f" and {len(instances) - LOGGED_MAX} more" if len(instances) > LOGGED_MAX else ""
    return {"instance": ", ".join(instances[:LOGGED_MAX]) + more}
