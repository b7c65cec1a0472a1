"""What the runtime is asked to do, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

import msgspec

from statewright.engine.errors import InvalidError, TooLargeError
from statewright.engine.events import ParentLink, RestoredStep, Status, Trigger
from statewright.engine.instance import result_id
from statewright.statecharts.chart import Chart
from statewright.statecharts.context import JSON_DEPTH_MAX
from statewright.statecharts.facts import Json, StepRecord

PAYLOAD_DEPTH_MAX = JSON_DEPTH_MAX
"""How deep lists and maps may nest in it."""
PAYLOAD_BYTES_MAX = 1_048_576
"""The most that an event's data or a start's context may take as JSON."""
TEXT_CHARS_MAX = 256
"""The most characters in an event's name, id, source or actor."""
REASON_CHARS_MAX = 4_096
"""The most characters in the reason of a lifecycle request."""
TIMER_SOURCE = "statewright/timer"
EFFECT_SOURCE = "statewright/effect"
MESSAGE_SOURCE = "statewright/instance"
_RESERVED = frozenset({TIMER_SOURCE, EFFECT_SOURCE, MESSAGE_SOURCE})
_RESERVED_NAMES = (
    "done.effect.",
    "error.effect.",
    "done.invoke.",
    "error.invoke.",
    "done.state.",
    "error.execution",
    "error.communication",
)
"""What only the machine and the engine raise: sent from outside, it would be a forged result."""


def _path_as_text(value: Any) -> str:
    """A path, which steps are given and return; JSON has no word for it."""
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_encode = msgspec.json.Encoder(order="deterministic", enc_hook=_path_as_text).encode
_decode = msgspec.json.decode


class ExternalEvent(msgspec.Struct, frozen=True, gc=False):
    """An event for one instance. Identity is (instance_id, source, id); `time` is the sender's, ns UTC, 0 unknown."""

    instance_id: str
    name: str
    data: Json
    id: str
    source: str = ""
    actor: str = ""
    time: int = 0


class StartRequest(msgspec.Struct, frozen=True):
    """Start an instance of `definition` (its newest version if `version` is None) with this id and context.

    A child has a `parent`, and its start ends the effect `effect_id` that asked for it.
    """

    instance_id: str
    definition: str
    context: Mapping[str, Any]
    version: str | None = None
    actor: str = ""
    parent: ParentLink | None = None
    effect_id: str = ""
    is_new: bool = False
    """Whether the id was drawn for this request: then it isn't looked up first, the log's key would tell."""


class ControlRequest(msgspec.Struct, frozen=True):
    """Pause, resume or cancel."""

    instance_id: str
    action: Literal["pause", "resume", "cancel"]
    reason: str = ""
    actor: str = ""


class ModifyRequest(msgspec.Struct, frozen=True):
    """Put an instance elsewhere (`engine/modification.py` says what that means).

    expected_sequence: that of the fact after which it was decided. chart: what the instance runs from now on, stored
    already. targets: the states to be in. keep: those that it is in and that are not left. context: all of it; None
    leaves it as it is. steps: records of steps, before those that entering the states makes. steps_restored: steps that
    stand as an earlier fact has said. activate: if it is paused, it goes on; an instance that had ended always does.
    """

    instance_id: str
    expected_sequence: int
    chart: Chart
    targets: tuple[str, ...]
    keep: tuple[str, ...] = ()
    context: Mapping[str, Any] | None = None
    steps: tuple[StepRecord, ...] = ()
    steps_restored: tuple[RestoredStep, ...] = ()
    activate: bool = False
    reason: str = ""
    actor: str = ""


class CheckpointRequest(msgspec.Struct, frozen=True):
    """Give a name to where an instance stands."""

    instance_id: str
    name: str
    reason: str = ""
    actor: str = ""


class TimerDue(msgspec.Struct, frozen=True):
    """A pending timer's time has come. Dropped if the instance no longer waits for it.

    drop_reason: don't fire it, but record that it is discarded, and why.
    """

    instance_id: str
    timer_id: str
    due_at: int
    drop_reason: str = ""


class EffectResult(msgspec.Struct, frozen=True):
    """How an effect ended: with a result, or for good with an error. `until`: the state whose leaving cancels it.
    `attempt`, `began_at`: which attempt it is of, and when that began (ns UTC)."""

    instance_id: str
    effect_id: str
    name: str
    result: Json = None
    error: str = ""
    until: str = ""
    attempt: int = 0
    began_at: int = 0

    @property
    def event_id(self) -> str:
        return result_id(self.effect_id)


class MessageArrived(msgspec.Struct, frozen=True):
    """What another instance says, or what has become of saying it; recorded once, with the end of effect `effect_id`.

    `expected`: it is an error (`NotFoundError`) if the instance has ended; else that is only noted. `error`: why the
    effect has failed, "" if it has not.
    """

    instance_id: str
    trigger: Trigger
    effect_id: str
    expected: bool = False
    error: str = ""


class ChildCancelled(msgspec.Struct, frozen=True):
    """The parent no longer needs this child. If it has ended, or was never started, nothing is to be done."""

    instance_id: str
    effect_id: str
    error: str = ""


class EffectEnded(msgspec.Struct, frozen=True):
    """There is nothing more to do for an effect, and nobody to tell."""

    instance_id: str
    effect_id: str
    error: str = ""


Request = (
    ExternalEvent
    | StartRequest
    | ControlRequest
    | ModifyRequest
    | CheckpointRequest
    | TimerDue
    | EffectResult
    | MessageArrived
    | ChildCancelled
    | EffectEnded
)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of an event. For "duplicate", the other fields are those of the first time."""

    kind: Literal["recorded", "duplicate", "refused"]
    reason: str
    sequence: int
    configuration: tuple[str, ...]
    status: Status


class Started(msgspec.Struct, frozen=True):
    """A started instance, as it was right after its start."""

    id: str
    sequence: int
    configuration: tuple[str, ...]
    status: Status


def effect_of(event_id: str) -> str:
    """The effect whose result has `event_id`."""
    return event_id.removesuffix("-result")


def identity_of(request: Request) -> tuple[str, str] | None:
    """(source, id) of a request that is recorded once however often it comes; None for those without."""
    if isinstance(request, ExternalEvent):
        return request.source, request.id
    if isinstance(request, EffectResult):
        return EFFECT_SOURCE, request.event_id
    if isinstance(request, MessageArrived):
        return request.trigger.source, request.trigger.id
    return None


def check_event(event: ExternalEvent) -> None:
    """Raise `InvalidError` unless name, id, source and actor are texts that can be stored, the former two not empty."""
    name, event_id, source, actor = event.name, event.id, event.source, event.actor
    try:
        joined = name + event_id + source + actor
        plain = len(joined) <= TEXT_CHARS_MAX and joined.isascii() and "\0" not in joined
    except (TypeError, AttributeError):
        plain = False
    if not plain:
        for what, text in (("name", name), ("id", event_id), ("source", source), ("actor", actor)):
            check_text(f"the event's {what}", text)
    if not name:
        raise InvalidError(f"expected an event name of 1 to {TEXT_CHARS_MAX} characters, got none")
    if not event_id:
        raise InvalidError(f"expected an event id of 1 to {TEXT_CHARS_MAX} characters, got none")
    if name.startswith(_RESERVED_NAMES):
        raise InvalidError(f"expected an event that can be sent, got '{name}', which only the engine itself brings")
    if source in _RESERVED:
        raise InvalidError(f"expected another source than '{source}', under which the engine records its own events")
    if type(event.time) is not int:
        raise InvalidError(f"expected the event's time in whole nanoseconds, got {event.time!r}")


def check_text(what: str, value: object, chars_max: int = TEXT_CHARS_MAX) -> None:
    """Raise `InvalidError` unless `value` is a text of at most `chars_max` characters that databases can keep: without
    NUL and lone surrogates."""
    if not isinstance(value, str):
        raise InvalidError(f"expected {what} to be a text, got {type(value).__name__}")
    if "\0" in value:
        raise InvalidError(f"expected {what} without NUL characters, got one at {value.index(chr(0))}")
    if len(value) > chars_max:
        raise InvalidError(f"expected {what} of at most {chars_max:,} characters, got {len(value):,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(f"expected {what} to be Unicode, got a lone surrogate at {error.start}") from error


def as_json(what: str, value: Json) -> tuple[Json, bytes]:
    """`value` as what its JSON says (so that live and replay see the same), and the JSON's canonical bytes. Dataclasses
    and Structs are mappings, a path is its text.

    Raises `InvalidError` if it isn't JSON or nests deeper than `PAYLOAD_DEPTH_MAX`, `TooLargeError` over
    `PAYLOAD_BYTES_MAX`.
    """
    if value is None:
        return None, b"null"
    try:
        encoded = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError) as error:
        raise InvalidError(f"expected {what} to be JSON, got {type(value).__name__}: {error}") from error
    if len(encoded) > PAYLOAD_BYTES_MAX:
        raise TooLargeError(f"expected {what} of at most {PAYLOAD_BYTES_MAX:,} bytes as JSON, got {len(encoded):,}")
    decoded = _decode(encoded)
    # Only what has that many brackets can be that deep, so that the usual value is not walked.
    if encoded.count(b"[") + encoded.count(b"{") > PAYLOAD_DEPTH_MAX and _is_deeper(decoded, PAYLOAD_DEPTH_MAX):
        raise InvalidError(f"expected {what} to nest at most {PAYLOAD_DEPTH_MAX} deep, it is deeper")
    return decoded, encoded


def _is_deeper(value: Json, depth: int) -> bool:
    """Whether lists and maps nest more than `depth` deep."""
    level = [value]
    for _ in range(depth + 1):
        level = [node for node in level if isinstance(node, dict | list)]
        if not level:
            return False
        level = [item for node in level for item in (node.values() if isinstance(node, dict) else node)]
    return True
