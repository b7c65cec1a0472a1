"""What goes into a step and what comes out: plain frozen values.

    step(machine, snapshot, event) -> Step

Invariants: a `Step` is complete (whatever it says happened is in it, nothing is looked up later) and performs
nothing. State ids are those of the chart, in document order unless said otherwise; the root is never listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict with str keys."""


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An event as the chart sees it (`event.name`, `event.data`; SCXML 5.10.1 `_event`).

    `type` is "external" for all that arrives, "platform" for errors that the machine raises and "internal" for
    what actions raise. `sendid`, `origin`, `origintype` and `invokeid` are SCXML's, empty where they don't apply.
    """

    name: str
    data: Json = None
    type: Literal["external", "internal", "platform"] = "external"
    sendid: str = ""
    origin: str = ""
    origintype: str = ""
    invokeid: str = ""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The runtime state of one instance, in the terms of its compiled machine.

    configuration: one bit per state, bit i = i-th state in document order (the machine's numbering).
    history: for each history state that has recorded something, its id -> ids of the states to restore.
    context: the data; treated as immutable, a step makes a new one.
    serial: how many ids (of sends, timers) the instance has generated so far; makes them deterministic.
    entered: bits of the states entered at least once (only for late-bound data; 0 elsewhere).
    invoked: the active children: invokeid -> the invoke's key, `<state>#<its place among the state's invokes>`.
    """

    configuration: int
    context: Mapping[str, Json]
    history: Mapping[str, tuple[str, ...]] = {}
    serial: int = 0
    entered: int = 0
    invoked: Mapping[str, str] = {}


class Taken(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One transition taken. `event` is "" for an eventless one; `targets` is empty for a targetless one."""

    source: str
    event: str = ""
    targets: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What one guard said, once per evaluation. `guard` is its CEL text or its function's name; `error` is why
    it could not be evaluated (then `passed` is false)."""

    state: str
    event: str
    guard: str
    passed: bool
    error: str = ""


class TimerSet(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="op", tag="set"):
    """Deliver `event` to this instance after `delay_ns` (0 = as soon as this step is committed).

    `timer_id` is unique among the instance's pending timers; setting an id again replaces it. `target` is another
    session to deliver it to (see `SendEvent`), always after a delay. `origintype` is the event's.
    """

    timer_id: str
    event: str
    delay_ns: int
    data: Json = None
    sendid: str = ""
    target: str = ""
    origintype: str = ""


class TimerCancelled(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="op", tag="cancelled"):
    """The pending timer `timer_id` is gone (a state was left, or a `cancel` action), or all those with `sendid` are.
    Unknown ids are no error."""

    timer_id: str
    sendid: str = ""


class StartChild(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", tag="start"):
    """Start a child session named `invokeid`, whose parent is this one. `key` leads to the invoke in the definition,
    which has the child's chart unless `src` (a file beside the chart's) or `content` (its SCXML) says it."""

    invokeid: str
    key: str
    src: str = ""
    content: str = ""
    data: Mapping[str, Json] = {}


class CancelChild(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", tag="cancel"):
    """End the child session `invokeid`; nothing that it still says counts."""

    invokeid: str


class ForwardEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", tag="forward"):
    """Deliver the event of this step to the child session `invokeid` too."""

    invokeid: str
    event: Event


class SendEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", tag="send"):
    """Deliver `event` to another session: `target` is `#_parent`, `#_<invokeid>` or `#_scxml_<sessionid>`. If nobody
    is there, the sender gets `error.communication`."""

    target: str
    event: str
    data: Json = None
    sendid: str = ""
    origintype: str = ""


Request = StartChild | CancelChild | ForwardEvent | SendEvent
"""What a step asks of another session."""


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`definition.Retry` with its durations in nanoseconds."""

    attempts: int = 5
    initial_ns: int = 1_000_000_000
    maximum_ns: int = 60_000_000_000
    multiplier: float = 2.0
    jitter: float = 0.0
    final: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chart says about how an effect is performed; None and 0 where it says nothing.

    until: the state whose leaving cancels the effect, "" for none.
    """

    retry: RetryPolicy | None = None
    timeout_ns: int = 0
    heartbeat_ns: int = 0
    until: str = ""


class Effect(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Something to be performed after the commit.

    kind: "perform" a handler registered under `name`; "emit" a message on subject `name`; "call" the service method
    `name` ("service.method"); "step" or "step.…" the step `name` of the workflow that the chart was compiled from.
    data: its argument, evaluated. state: the state whose action asked for it.
    """

    name: str
    kind: str = "perform"
    data: Json = None
    state: str = ""
    policy: Policy | None = None


class StepRecord(msgspec.Struct, frozen=True, gc=False):
    """How a step of the instance stands from here on (`definition.StepStatus`)."""

    step: str
    status: str


class Step(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The outcome of one macrostep.

    When `reason` is not empty the event changed nothing: `snapshot` is the one that came in, all else but `guards` is
    empty, and `reason` says why (no transition, which guard was false, which expression failed). Otherwise:
    `exited`/`entered` in the order in which it happened over all microsteps, `context` the top-level keys that changed
    with their new values, `history` the history values that changed, `timers`, `requests` (to other sessions) and
    `effects` in order, `raised` the names of internal events processed, `records` the last record of each step that has
    one. `status` is "completed", "failed" or "cancelled" once a top-level final state was entered (which of them, it
    says), then `output` is its donedata and `error`, unless it is completed, the context's field of that name; the
    configuration is then the one before the final exit. Effects that are cancelled in the macrostep that asks for them
    are left out.
    """

    snapshot: Snapshot
    reason: str = ""
    taken: tuple[Taken, ...] = ()
    exited: tuple[str, ...] = ()
    entered: tuple[str, ...] = ()
    guards: tuple[Verdict, ...] = ()
    context: Mapping[str, Json] = {}
    history: Mapping[str, tuple[str, ...]] = {}
    timers: tuple[TimerSet | TimerCancelled, ...] = ()
    requests: tuple[Request, ...] = ()
    effects: tuple[Effect, ...] = ()
    raised: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    records: tuple[StepRecord, ...] = ()
    status: Literal["active", "completed", "failed", "cancelled"] = "active"
    output: Json = None
    error: str = ""
