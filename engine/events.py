"""The facts: every change of an instance is one of these, appended and never changed.

Invariants: a fact holds all that folding it needs (`evolve` reads no chart and runs no code), including the
*resulting* configuration; names are in the past tense; `sequence` counts from 1 without gaps per instance;
`time` is nanoseconds UTC of the engine's clock. The JSON of a fact is what is stored, published and shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from statewright.statecharts.facts import Json, Policy, StepRecord, Taken, Verdict
from statewright.statecharts.splices import Splice

SCHEMA = 1
"""The schema version written into each fact; older ones are upcast when read (`engine/mapper.py`)."""

Status = Literal["active", "paused", "completed", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


class Trigger(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What made a macrostep happen. (`source`, `id`) identify it within its instance.

    kind: "event" somebody sent it, "timer" a timer was due, "effect" an effect's result, "message" another instance
    sent it, or it is about a child. time: when the sender says it happened (ns UTC, 0 = not said). sendid, origin,
    origintype, invokeid: SCXML's (5.10.1), of what instances send. sender: the instance that a message is from. target:
    where a timer's event goes, "" is its own instance. attempt, began_at: of an effect's result, which attempt it is
    of (from 1) and when that began (ns UTC); 0 where nobody said.
    """

    name: str
    id: str
    source: str = ""
    kind: Literal["event", "timer", "effect", "message"] = "event"
    actor: str = ""
    time: int = 0
    data: Json = None
    sendid: str = ""
    origin: str = ""
    origintype: str = ""
    invokeid: str = ""
    sender: str = ""
    target: str = ""
    attempt: int = 0
    began_at: int = 0


class ParentLink(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who has invoked an instance: the parent, and the invoke's id there. `root` is the first of the family,
    `generation` the distance from it (a child of the first has 1)."""

    instance_id: str
    invokeid: str
    root: str
    generation: int = 1


class ChildLink(msgspec.Struct, frozen=True, omit_defaults=True):
    """A child that an instance has invoked. `key` leads to the invoke in the definition."""

    invokeid: str
    key: str
    instance_id: str


class PendingTimer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A timer that has been set: deliver `event` when the clock reaches `due_at` (ns UTC), to the session `target`."""

    timer_id: str
    event: str
    due_at: int
    data: Json = None
    sendid: str = ""
    origintype: str = ""
    target: str = ""


class RequestedEffect(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An effect to be performed after the commit; `effect_id` is instance-sequence-index, index from 0.

    kind: "perform", "emit", "call", and what the engine itself performs: "start", "send", "forward", "cancel" and
    "done" (see `engine/relatives.py`). policy: what the pinned definition says about how it is performed.
    """

    effect_id: str
    name: str
    kind: str = "perform"
    data: Json = None
    state: str = ""
    policy: Policy | None = None


def _current_schema() -> int:
    # A factory, because `omit_defaults` would leave a plain default out of the stored JSON.
    return SCHEMA


class Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type"):
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

    configuration: all active states afterwards, in document order; while they are many, `configuration_changes` says
    instead how they differ from those before (see `statecharts/splices.py`). context: the changed top-level keys.
    timers_set, timers_cancelled: in order, cancellations already applied against what was set in the same
    step. serial: the id counter afterwards. children_ended: ids of invokes that are over, children_started: those begun
    (after that). bound: the states whose late-bound data got its values. effects_cancelled: ids of effects whose result
    is no longer waited for, because the state that they were asked for in was left. steps: what it says about steps
    of a workflow, in order.
    """

    configuration: tuple[str, ...] = ()
    configuration_changes: tuple[Splice, ...] | None = None
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
    children_ended: tuple[str, ...] = ()
    children_started: tuple[ChildLink, ...] = ()
    bound: tuple[str, ...] = ()
    effects_cancelled: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    status: Status = "active"
    output: Json = None
    error: str = ""


class RestoredStep(msgspec.Struct, frozen=True):
    """A step stands as it once did: `status` was set by the fact at `sequence`, which has its data; ns UTC."""

    step: str
    status: str
    sequence: int
    started_at: int | None = None
    ended_at: int | None = None


class InstanceStarted(Macrostep, frozen=True, kw_only=True, omit_defaults=True, tag="instance_started"):
    """The first fact of an instance: what it runs (pinned by digest), and where it stands after its start.

    `input` is the context as the caller gave it; a second start with the same input is the same start. `parent` is who
    has invoked it, if anyone has.
    """

    definition: str
    version: str
    digest: str
    input: Mapping[str, Any] = {}
    actor: str = ""
    parent: ParentLink | None = None


class TransitionTaken(Macrostep, frozen=True, kw_only=True, omit_defaults=True, tag="transition_taken"):
    """An event was processed and at least one transition was taken."""

    trigger: Trigger


class InstanceModified(Macrostep, frozen=True, kw_only=True, omit_defaults=True, tag="instance_modified"):
    """The instance was put elsewhere by somebody, not by an event: into other states, with another context, or on a
    definition that was derived from its own. If it had ended, it goes on.

    Other than in a macrostep, `context`, `history` and `bound` are complete, as they are afterwards. `exited`: the
    states that it was in and did not keep (none if it had ended); no exit action ran. `timers_cancelled`,
    `effects_cancelled`: what belonged to those. `steps_restored`: steps that stand as an earlier fact says.
    `definition`, `version`, `digest`: what it is pinned to from now on.
    """

    definition: str
    version: str
    digest: str
    steps_restored: tuple[RestoredStep, ...] = ()
    reason: str = ""
    actor: str = ""


class CheckpointTaken(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="checkpoint_taken"):
    """Somebody has given a name to where the instance stands, to come back to it. Nothing else changes."""

    name: str
    reason: str = ""
    actor: str = ""


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


class EventSent(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="event_sent"):
    """A delayed event for another instance was due: the effect takes it there."""

    trigger: Trigger
    effects: tuple[RequestedEffect, ...] = ()


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
    """Ended from outside. Pending timers and effects are dropped.

    When somebody asks for it, no exit action runs. When the parent has left the state that invoked it, they do (SCXML
    6.4): context, effects and logs are what came of them. Either way `effects` has its own children cancelled.
    """

    reason: str = ""
    actor: str = ""
    context: Mapping[str, Any] = {}
    effects: tuple[RequestedEffect, ...] = ()
    logs: tuple[str, ...] = ()


class InstanceFailed(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="instance_failed"):
    """Ended by an error that nothing in the chart handled. `trigger` is what brought it, if any; `effects` cancel its
    children and tell its parent; `effects_cancelled` as in a macrostep."""

    error: str
    trigger: Trigger | None = None
    effects: tuple[RequestedEffect, ...] = ()
    effects_cancelled: tuple[str, ...] = ()


class InstancePruned(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="instance_pruned"):
    """The tombstone: the only fact of an instance whose others were moved to an archive; it follows the last of them.

    It keeps the id taken, and what a read model needs to be rebuilt without the others: `kept`, by its name.
    """

    definition: str
    version: str
    digest: str
    status: Status
    started_at: int
    ended_at: int
    kept: Mapping[str, Json] = {}


AnyFact = (
    InstanceStarted
    | TransitionTaken
    | InstanceModified
    | CheckpointTaken
    | EventRefused
    | EventDiscarded
    | EventSent
    | EventDeferred
    | InstancePaused
    | InstanceResumed
    | InstanceCancelled
    | InstanceFailed
    | InstancePruned
)
