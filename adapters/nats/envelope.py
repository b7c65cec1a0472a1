"""Envelopes: messages to requests and back. Pure: bytes and headers in, frozen values out.

An event is a CloudEvents 1.0 message, recognised in this order:
- structured: `content-type: application/cloudevents+json`, the payload is the whole event;
- binary: `ce-*` headers (`ce-id` and `ce-type` needed; `ce-source`, `ce-time`, `ce-actor`), the payload is the data;
- without any of these, a payload that is an object with `specversion` is taken as structured.
`type` is the event's name; a missing `source` is "". Header names are compared without case; their values are
percent-decoded as in the HTTP binding (3.1.3.2). `actor` is an extension attribute: who did it. Every fault is an
`InvalidError` (or `TooLargeError`) that says what was expected, what came, and where.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote

import msgspec

from statewright.adapters.nats.rfc3339 import format_time, parse_time
from statewright.engine.errors import InvalidError, TooLargeError
from statewright.engine.ids import check_id
from statewright.engine.requests import (
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
    TEXT_CHARS_MAX,
    ControlRequest,
    ExternalEvent,
    StartRequest,
)
from statewright.engine.schedules import CatchUp, Overlap
from statewright.statecharts.facts import Json

MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX + 65_536
"""The most that a message may take: the engine's limit for the data, and room for an envelope around it."""
DEPTH_MAX = PAYLOAD_DEPTH_MAX + 1
"""How deep arrays and objects may nest in a message: the engine's limit for the data, and the envelope around it."""
STRUCTURED = "application/cloudevents+json"

Headers = Mapping[str, str]
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class _Structured(msgspec.Struct):
    """The JSON event format (CloudEvents JSON 1.0); attributes that are not ours are passed over."""

    id: str
    type: str
    specversion: str
    source: str = ""
    time: str | None = None
    actor: str = ""
    datacontenttype: str | None = None
    data: Json = None
    data_base64: str | None = None


class _Start(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None
    context: dict[str, Any] | None = None
    version: str | None = None
    actor: str = ""


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    action: Literal["pause", "resume", "cancel"]
    reason: str = ""
    actor: str = ""


class AddSchedule(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="action", tag="add"):
    """Add a schedule: the fields of `ScheduleRequest`, whose id is in the subject."""

    definition: str
    cron: str
    tz: str = "UTC"
    context: dict[str, Any] = {}
    version: str | None = None
    catch_up: CatchUp = "one"
    overlap: Overlap = "allow"
    end_at: int | None = None
    actor: str = ""


class RemoveSchedule(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="remove"): ...


class PauseSchedule(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="pause"): ...


class ResumeSchedule(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="resume"): ...


ScheduleAction = AddSchedule | RemoveSchedule | PauseSchedule | ResumeSchedule

_JSON = msgspec.json.Decoder(Any)
_STRUCTURED = msgspec.json.Decoder(_Structured)
_START = msgspec.json.Decoder(_Start)
_CONTROL = msgspec.json.Decoder(_Control)
_SCHEDULE: msgspec.json.Decoder[ScheduleAction] = msgspec.json.Decoder(ScheduleAction)


def decode_event(instance_id: str, headers: Headers | None, payload: bytes) -> ExternalEvent:
    """The event in a message for `instance_id`. Raises `InvalidError`, `TooLargeError`."""
    check_id("an instance id", instance_id)
    _check_size(payload)
    attributes = _lowered(headers)
    kind = _kind(attributes)
    if kind == STRUCTURED:
        return _from_structured(instance_id, payload)
    if kind.startswith("application/cloudevents"):
        raise InvalidError(f"expected content-type {STRUCTURED}, or ce-* headers, got content-type {kind!r}")
    if "ce-id" not in attributes and "ce-type" not in attributes and _looks_structured(payload):
        return _from_structured(instance_id, payload)
    return _from_binary(instance_id, attributes, payload)


def decode_start(definition: str, instance_id: str | None, headers: Headers | None, payload: bytes) -> StartRequest:
    """The start in a message for `definition`: `{"id"?, "context"?, "version"?, "actor"?}`, or the same as the data of
    a CloudEvent (whose actor counts if the data has none). No payload means all defaults. `instance_id` is used when
    the message names none. Raises `InvalidError`, `TooLargeError`."""
    check_id("a definition name", definition)
    _check_size(payload)
    attributes = _lowered(headers)
    actor = _unquoted(attributes.get("ce-actor", ""))
    if _kind(attributes) == STRUCTURED or _looks_structured(payload):
        event = _read_structured(payload)
        actor = event.actor
        wanted = _converted("the start in the CloudEvent's data", _data(event))
    else:
        wanted = _decoded("the start", _START, payload) if payload else _Start()
    chosen = check_id("an instance id", wanted.id if wanted.id is not None else instance_id)
    return StartRequest(chosen, definition, wanted.context or {}, wanted.version, wanted.actor or actor)


def decode_control(instance_id: str, payload: bytes) -> ControlRequest:
    """`{"action": "pause" | "resume" | "cancel", "reason"?, "actor"?}`. Raises `InvalidError`, `TooLargeError`."""
    check_id("an instance id", instance_id)
    _check_size(payload)
    wanted = _decoded("the control request", _CONTROL, payload)
    return ControlRequest(instance_id, wanted.action, wanted.reason, wanted.actor)


def decode_schedule(schedule_id: str, payload: bytes) -> ScheduleAction:
    """`{"action": "add", "definition", "cron", …}`, or `{"action": "remove" | "pause" | "resume"}`. Raises
    `InvalidError`, `TooLargeError`."""
    check_id("a schedule id", schedule_id)
    _check_size(payload)
    return _decoded("the schedule request", _SCHEDULE, payload)


def decode_json(what: str, payload: bytes) -> Json:
    """A payload as JSON; an empty one is None. Raises `InvalidError`, `TooLargeError`."""
    _check_size(payload)
    return _decoded(what, _JSON, payload) if payload else None


def encode_event(event: ExternalEvent) -> tuple[dict[str, str], bytes]:
    """Headers and payload of `event` in binary mode."""
    headers = {"ce-specversion": "1.0", "ce-id": _quoted(event.id), "ce-type": _quoted(event.name)}
    if event.source:
        headers["ce-source"] = _quoted(event.source)
    if event.actor:
        headers["ce-actor"] = _quoted(event.actor)
    if event.time:
        headers["ce-time"] = format_time(event.time)
    headers["content-type"] = "application/json"
    return headers, _encode(event.data)


def encode_start(request: StartRequest, *, with_id: bool) -> bytes:
    """Payload of a start; `with_id=False` lets the engine choose the id."""
    body: dict[str, Any] = {"id": request.instance_id} if with_id else {}
    body["context"] = request.context
    if request.version is not None:
        body["version"] = request.version
    if request.actor:
        body["actor"] = request.actor
    return _encode(body)


def encode_control(request: ControlRequest) -> bytes:
    return _encode({"action": request.action, "reason": request.reason, "actor": request.actor})


def encode_schedule(action: ScheduleAction) -> bytes:
    return _encode(action)


def _from_binary(instance_id: str, attributes: Headers, payload: bytes) -> ExternalEvent:
    for name in ("ce-id", "ce-type"):
        if not attributes.get(name):
            raise InvalidError(
                f"expected an event with a non-empty header '{name}' (CloudEvents binary mode), or content-type "
                f"{STRUCTURED}, got headers: {', '.join(sorted(attributes)) or 'none'}"
            )
    _check_version(attributes.get("ce-specversion", "1.0"))
    time = attributes.get("ce-time", "")
    return ExternalEvent(
        instance_id,
        _attribute("ce-type", _unquoted(attributes["ce-type"])),
        _decoded("the event's data", _JSON, payload) if payload else None,
        _attribute("ce-id", _unquoted(attributes["ce-id"])),
        _attribute("ce-source", _unquoted(attributes.get("ce-source", ""))),
        _attribute("ce-actor", _unquoted(attributes.get("ce-actor", ""))),
        parse_time("ce-time", time) if time else 0,
    )


def _from_structured(instance_id: str, payload: bytes) -> ExternalEvent:
    event = _read_structured(payload)
    time = event.time
    return ExternalEvent(
        instance_id,
        _attribute("type", event.type),
        _data(event),
        _attribute("id", event.id),
        _attribute("source", event.source),
        _attribute("actor", event.actor),
        parse_time("the CloudEvent's 'time'", time) if time is not None else 0,
    )


def _read_structured(payload: bytes) -> _Structured:
    event = _decoded("the CloudEvent", _STRUCTURED, payload)
    _check_version(event.specversion)
    for name, value in (("id", event.id), ("type", event.type)):
        if not value:
            raise InvalidError(f"expected the CloudEvent's '{name}' to be non-empty")
    return event


def _data(event: _Structured) -> Json:
    if event.data_base64 is None:
        return event.data
    if event.data is not None:
        raise InvalidError("expected the CloudEvent to have 'data' or 'data_base64', got both")
    try:
        decoded = base64.b64decode(event.data_base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidError(f"expected the CloudEvent's 'data_base64' to be base64: {error}") from error
    return _decoded("the CloudEvent's 'data_base64'", _JSON, decoded)


def _check_size(payload: bytes) -> None:
    if len(payload) > MESSAGE_BYTES_MAX:
        raise TooLargeError(
            f"expected a message of at most {MESSAGE_BYTES_MAX:,} bytes (data: {PAYLOAD_BYTES_MAX:,}), "
            f"got {len(payload):,}"
        )


def _check_version(version: str) -> None:
    if version != "1.0":
        raise InvalidError(f"expected CloudEvents specversion '1.0', got {_shown(version)}")


def _attribute(name: str, value: str) -> str:
    if len(value) > TEXT_CHARS_MAX:
        raise InvalidError(f"expected '{name}' of at most {TEXT_CHARS_MAX:,} characters, got {len(value):,}")
    return value


def _lowered(headers: Headers | None) -> Headers:
    return {name.lower(): value for name, value in headers.items()} if headers else {}


def _looks_structured(payload: bytes) -> bool:
    """Cheap, and only a hint: what it lets through is then decoded and checked."""
    return b'"specversion"' in payload[:4_096] and payload.lstrip()[:1] == b"{"


def _kind(attributes: Headers) -> str:
    return attributes.get("content-type", "").partition(";")[0].strip().lower()


def _decoded(what: str, decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    """`payload` decoded. Raises `InvalidError` with the place of the fault."""
    try:
        decoded = decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{what} has not the expected form: {error}; got {_shown(payload)}") from error
    except RecursionError as error:
        raise InvalidError(f"expected {what} to nest at most {DEPTH_MAX} deep, got more") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidError(f"expected {what} to be JSON: {error}; got {_shown(payload)}") from error
    if payload.count(b"[") + payload.count(b"{") > DEPTH_MAX and _is_deep(payload):
        raise InvalidError(f"expected {what} to nest at most {DEPTH_MAX} deep, got more")
    return decoded


def _is_deep(payload: bytes) -> bool:
    """Whether valid JSON nests deeper than `DEPTH_MAX`: without strings and scalars only brackets are left, of which
    each pass takes the innermost pairs away. (A walk in Python would stop the event loop for too long.)"""
    quoted = payload.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_BRACKETS)
    brackets = b"".join(quoted.split(b'"')[::2])
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = _INNERMOST.sub(b"", brackets)
    return bool(brackets)


_NOT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_INNERMOST = re.compile(rb"\[\]|\{\}")


def _converted(what: str, value: Json) -> _Start:
    try:
        return msgspec.convert({} if value is None else value, _Start)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{what} has not the expected form: {error}") from error


def _shown(value: str | bytes) -> str:
    text = value[:60] if isinstance(value, str) else value[:60].decode(errors="replace")
    return f"{text!r} and {len(value) - 60:,} more" if len(value) > 60 else repr(text)


def _quoted(value: str) -> str:
    """Header values travel as printable ASCII."""
    return value if value.isascii() and value.isalnum() else quote(value, safe=_SAFE)


_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def _unquoted(value: str) -> str:
    return unquote(value) if "%" in value else value
