"""The timeline of one instance: each fact with where the instance stood before and after it.

Pure. The one fold is the engine's `evolve`; nothing is looked up in a chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from statewright.engine.events import Fact, InstanceModified, InstanceStarted, Macrostep, Trigger
from statewright.engine.instance import Instance, evolve

_MISSING = object()
_ALWAYS = frozenset({"name", "id", "source", "kind", "actor", "time", "data"})
"""What is said of every trigger, empty or not."""


class Entry(NamedTuple):
    """One fact in its place. `before` is None for the first."""

    fact: Fact
    before: Instance | None
    after: Instance

    @property
    def trigger(self) -> Trigger | None:
        """What brought the fact about; None for a start or a lifecycle request."""
        return getattr(self.fact, "trigger", None)

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Each context key that has another value now -> (old, new); None for one that was not there, or is gone."""
        if not isinstance(self.fact, Macrostep):
            return {}
        before: Mapping[str, Any] = self.before.context if self.before else {}
        changed = {
            key: (before.get(key), value)
            for key, value in self.fact.context.items()
            if before.get(key, _MISSING) != value
        }
        if isinstance(self.fact, InstanceModified):
            changed |= {key: (value, None) for key, value in before.items() if key not in self.fact.context}
        return changed


def timeline(facts: Iterable[Fact], instance: Instance | None = None) -> Iterator[Entry]:
    """Each of one instance's facts, in order, with the fold before and after. `instance`: the fold so far."""
    for fact in facts:
        after = evolve(instance, fact)
        yield Entry(fact, instance, after)
        instance = after


def history_json(entry: Entry) -> dict[str, Any]:
    """A fact as one JSON object: `sequence`, `type`, `time` (ns UTC), `trigger` (see `Trigger`; null for a start or a
    lifecycle request), `from` and `to` (active states before and after, in document order), `status` afterwards,
    then all other fields of the fact that are not empty (`taken`, `guards`, `context` = what changed, `effects`, ...).
    """
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(entry.fact))
    line = {
        "sequence": fields.pop("sequence"),
        "type": fields.pop("type"),
        "time": fields.pop("time"),
        "trigger": _trigger_json(entry.trigger),
        "from": list(entry.before.configuration) if entry.before else [],
        "to": list(entry.after.configuration),
        "status": entry.after.status,
    }
    if isinstance(entry.fact, InstanceStarted):
        # The first fact names what runs; later ones don't, a reader joins them by the instance.
        line |= {key: fields.pop(key) for key in ("definition", "version", "digest")}
    for known in ("trigger", "configuration", "configuration_changes", "status"):
        fields.pop(known, None)
    return line | fields


def _trigger_json(trigger: Trigger | None) -> dict[str, Any] | None:
    if trigger is None:
        return None
    fields = {name: getattr(trigger, name) for name in Trigger.__struct_fields__}
    return {name: value for name, value in fields.items() if value or name in _ALWAYS}
