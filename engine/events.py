"""The facts: every change of an instance is one of these, appended and never changed.

Invariants: a fact holds all that folding it needs (`evolve` reads no chart and runs no code), including the
*resulting* configuration; names are in the past tense; `sequence` counts from 1 without gaps per instance;
`time` is nanoseconds UTC of the engine's clock. The JSON of a fact is what is stored, published and shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from statewright.statecharts.facts import Json, Taken, Verdict

SCHEMA = 1
"""The schema version written into each fact; older ones are upcast when read (`engine/mapper.py`)."""

Status = Literal["active", "paused", "completed", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


class Trigger(msgspec.Struct, frozen=True, omit_defaults=True):
    """What made a macrostep happen. (`source`, `id`) identify it within its instance.

    kind: "event" somebody sent it, "timer" a timer was due, "effect" an effect's result.
    time: when the sender says it happened (ns UTC, 0 = not said).
    """

    name: str
    id: str
    source: str = ""
    kind: Literal["event", "timer", "effect"] = "event"
    actor: str = ""
    time: int = 0
    data: Json = None


class PendingTimer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A timer that has been set: deliver `event` when the clock reaches `due_at` (ns UTC)."""

    timer_id: str
    event: str
    due_at: int
    data: Json = None
    sendid: str = ""
    origintype: str = ""


class RequestedEffect(msgspec.Struct, frozen=True, omit_defaults=True):
    """An effect to be performed after the commit; `effect_id` is instance-sequence-index, index from 0."""

    effect_id: str
    name: str
    kind: str = "perform"
    data: Json = None
    state: str = ""


def _current_schema() -> int:
    # A factory, because `omit_defaults` would leave a plain default out of the stored JSON.
    return SCHEMA


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all facts have."""

    instance_id: str
    sequence: int
    time: int
    schema: int = msgspec.field(default_factory=_current_schema)

    @property
    def originator_id(self) -> str:
        """The aggregate's id, in the words of the `eventsourcing` library."""
        return self.instance_id

    @property
    def originator_version(self) -> int:
        """The aggregate's version, in the words of the `eventsourcing` library."""
        return self.sequence


class Macrostep(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """A macrostep that changed something (fields as in `statecharts.facts.Step`).

    configuration: all active states afterwards, in document order. context: the changed top-level keys.
    timers_set, timers_cancelled: in order, cancellations already applied against what was set in the same
    step. serial: the id counter afterwards.
    """

    configuration: tuple[str, ...]
    taken: tuple[Taken, ...] = ()
    exited: tuple[str, ...] = ()
    entered: tuple[str, ...] = ()
    guards: tuple[Verdict, ...] = ()
    context: Mapping[str, Any] = {}
    history: Mapping[str, tuple[str, ...]] = {}
    timers_set: tuple[PendingTimer, ...] = ()
    timers_cancelled: tuple[str, ...] = ()
    effects: tuple[RequestedEffect, ...] = ()
    raised: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    serial: int = 0
    status: Status = "active"
    output: Json = None
    error: str = ""


class InstanceStarted(Macrostep, frozen=True, kw_only=True, omit_defaults=True, tag="instance_started"):
    """The first fact of an instance: what it runs (pinned by digest), and where it stands after its start.

    `input` is the context as the caller gave it; a second start with the same input is the same start.
    """

    definition: str
    version: str
    digest: str
    input: Mapping[str, Any] = {}
    actor: str = ""


class TransitionTaken(Macrostep, frozen=True, kw_only=True, omit_defaults=True, tag="transition_taken"):
    """An event was processed and at least one transition was taken."""

    trigger: Trigger


class EventRefused(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="event_refused"):
    """An event changed nothing; `reason` says why (no transition, which guard was false, the instance ended)."""

    trigger: Trigger
    reason: str
    guards: tuple[Verdict, ...] = ()


class EventDiscarded(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="event_discarded"):
    """A timer or an effect's result that the chart does not wait for: noted, not refused, since nobody asked."""

    trigger: Trigger
    reason: str
    guards: tuple[Verdict, ...] = ()


class EventDeferred(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="event_deferred"):
    """The instance was paused: the trigger waits and is applied, in order, on resume."""

    trigger: Trigger


class InstancePaused(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="instance_paused"):
    reason: str = ""
    actor: str = ""


class InstanceResumed(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="instance_resumed"):
    """Deferred triggers follow as facts of their own, in order, in the same transaction."""

    reason: str = ""
    actor: str = ""


class InstanceCancelled(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="instance_cancelled"):
    """Ended from outside. Pending timers and effects are dropped, no exit action runs."""

    reason: str = ""
    actor: str = ""


class InstanceFailed(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="instance_failed"):
    """Ended by an error that nothing in the chart handled. `trigger` is what brought it, if any."""

    error: str
    trigger: Trigger | None = None


AnyFact = (
    InstanceStarted
    | TransitionTaken
    | EventRefused
    | EventDiscarded
    | EventDeferred
    | InstancePaused
    | InstanceResumed
    | InstanceCancelled
    | InstanceFailed
)
