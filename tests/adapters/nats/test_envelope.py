"""Messages to requests and back, as tables."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statewright.adapters.nats.envelope import (
    DEPTH_MAX,
    MESSAGE_BYTES_MAX,
    decode_control,
    decode_event,
    decode_json,
    decode_start,
    encode_control,
    encode_event,
    encode_start,
)
from statewright.adapters.nats.rfc3339 import format_time, parse_time
from statewright.engine.errors import InvalidError, TooLargeError
from statewright.engine.requests import PAYLOAD_DEPTH_MAX, ControlRequest, ExternalEvent, StartRequest

BINARY = {"ce-id": "e-1", "ce-type": "submit"}
CLOUD = {"specversion": "1.0", "id": "e-1", "type": "submit"}
STRUCTURED = {"content-type": "application/cloudevents+json"}


def cloud(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**CLOUD, **changes}.items() if value is not ...}).encode()


EVENTS = {
    "binary, least": (BINARY, b"", ExternalEvent("d-17", "submit", None, "e-1")),
    "binary, all": (
        {
            **BINARY,
            "ce-source": "/forms",
            "ce-actor": "ann",
            "ce-time": "1970-01-01T00:00:01.5Z",
            "ce-specversion": "1.0",
        },
        b'{"amount": 900}',
        ExternalEvent("d-17", "submit", {"amount": 900}, "e-1", "/forms", "ann", 1_500_000_000),
    ),
    "binary, other case": ({"CE-ID": "e-1", "Ce-Type": "submit"}, b"[1]", ExternalEvent("d-17", "submit", [1], "e-1")),
    "binary, percent-encoded": (
        {"ce-id": "100%25", "ce-type": "submit", "ce-actor": "Ren%C3%A9e"},
        b"",
        ExternalEvent("d-17", "submit", None, "100%", "", "Renée"),
    ),
    "binary, a payload that has specversion": (
        BINARY,
        b'{"specversion": 3}',
        ExternalEvent("d-17", "submit", {"specversion": 3}, "e-1"),
    ),
    "structured": (
        STRUCTURED,
        cloud(source="s", actor="ann", data={"a": [None]}, time="1970-01-01T01:00:00+01:00", mine="x"),
        ExternalEvent("d-17", "submit", {"a": [None]}, "e-1", "s", "ann", 0),
    ),
    "structured, charset": (
        {"Content-Type": "Application/CloudEvents+JSON; charset=utf-8"},
        cloud(),
        ExternalEvent("d-17", "submit", None, "e-1"),
    ),
    "structured, base64": (
        STRUCTURED,
        cloud(data_base64=base64.b64encode(b'{"a": 1}').decode()),
        ExternalEvent("d-17", "submit", {"a": 1}, "e-1"),
    ),
    "structured, no headers": (None, cloud(data=7), ExternalEvent("d-17", "submit", 7, "e-1")),
}


@pytest.mark.parametrize(("headers", "payload", "expected"), EVENTS.values(), ids=EVENTS)
def test_event(headers: dict[str, str] | None, payload: bytes, expected: ExternalEvent) -> None:
    assert decode_event("d-17", headers, payload) == expected


FAULTS = {
    "no headers at all": (None, b"{}", "expected an event with a non-empty header 'ce-id'"),
    "no id": ({"ce-type": "submit"}, b"{}", "'ce-id'"),
    "empty id": ({"ce-type": "submit", "ce-id": ""}, b"{}", "'ce-id'"),
    "no type": ({"ce-id": "e-1"}, b"{}", "'ce-type'"),
    "no type, the message says what came": ({"ce-id": "e-1", "X-Y": "z"}, b"{}", "got headers: ce-id, x-y"),
    "data is no JSON": (BINARY, b'{"a":', "expected the event's data to be JSON"),
    "data is no text": (BINARY, b"\xff\xfe", "expected the event's data to be JSON"),
    "data is NaN": (BINARY, b"NaN", "expected the event's data to be JSON"),
    "two values": (BINARY, b"1 2", "expected the event's data to be JSON"),
    "other version": ({**BINARY, "ce-specversion": "0.3"}, b"", "expected CloudEvents specversion '1.0', got '0.3'"),
    "bad time": ({**BINARY, "ce-time": "yesterday"}, b"", "expected ce-time to be an RFC 3339 time"),
    "too long an id": (
        {**BINARY, "ce-id": "x" * 257},
        b"",
        "expected 'ce-id' of at most 256 characters, got 257",
    ),
    "batch": ({"content-type": "application/cloudevents-batch+json"}, b"[]", "cloudevents-batch"),
    "structured, no JSON": (STRUCTURED, b"{nonsense", "expected the CloudEvent to be JSON"),
    "structured, no object": (STRUCTURED, b"[]", "the CloudEvent has not the expected form"),
    "structured, empty": (STRUCTURED, b"", "the CloudEvent"),
    "structured, no id": (STRUCTURED, cloud(id=...), "missing required field `id`"),
    "structured, empty type": (STRUCTURED, cloud(type=""), "expected the CloudEvent's 'type' to be non-empty"),
    "structured, id is a number": (STRUCTURED, cloud(id=1), "$.id"),
    "structured, other version": (STRUCTURED, cloud(specversion="2.0"), "got '2.0'"),
    "structured, bad time": (STRUCTURED, cloud(time="2026-02-30T00:00:00Z"), "2026-02-30"),
    "structured, both data": (STRUCTURED, cloud(data=1, data_base64="MQ=="), "got both"),
    "structured, bad base64": (STRUCTURED, cloud(data_base64="!"), "base64"),
    "structured, base64 of no JSON": (STRUCTURED, cloud(data_base64="/w=="), "to be JSON"),
    "too deep": (BINARY, b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), f"nest at most {DEPTH_MAX} deep"),
    "far too deep": (BINARY, b"[" * 100_000 + b"]" * 100_000, f"nest at most {DEPTH_MAX} deep"),
    "too deep, beside strings": (
        BINARY,
        b'["\\"]]", ' + b'{"a":' * DEPTH_MAX + b"1" + b"}" * DEPTH_MAX + b"]",
        f"nest at most {DEPTH_MAX} deep",
    ),
}


@pytest.mark.parametrize(("headers", "payload", "message"), FAULTS.values(), ids=FAULTS)
def test_fault(headers: dict[str, str] | None, payload: bytes, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        decode_event("d-17", headers, payload)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_brackets_in_strings_are_not_depth() -> None:
    payload = json.dumps(["[" * 500, '\\"{' * 500, "\\", {"a": ["[[" * 50] * 60}]).encode()
    assert decode_event("d-17", BINARY, payload).data == json.loads(payload)


def test_what_the_engine_takes_fits_into_an_envelope() -> None:
    data: Any = []
    for _ in range(PAYLOAD_DEPTH_MAX - 1):
        data = [data]
    assert decode_event("d-17", STRUCTURED, cloud(data=data)).data == data
    with pytest.raises(InvalidError, match="deep"):
        decode_event("d-17", STRUCTURED, cloud(data=[data]))


def test_wide_is_not_deep() -> None:
    payload = json.dumps([{"a": [1, "x"]}] * 40_000).encode()
    assert len(decode_event("d-17", BINARY, payload).data) == 40_000


@pytest.mark.parametrize("instance_id", ["", "a b", "a.b", "x" * 129, "é"])
def test_bad_instance_id(instance_id: str) -> None:
    with pytest.raises(InvalidError, match="an instance id"):
        decode_event(instance_id, BINARY, b"")


def test_too_large_is_refused_unread() -> None:
    with pytest.raises(TooLargeError, match=f"at most {MESSAGE_BYTES_MAX:,} bytes"):
        decode_event("d-17", BINARY, b"x" * (MESSAGE_BYTES_MAX + 1))
    with pytest.raises(TooLargeError):
        decode_json("anything", b"x" * (MESSAGE_BYTES_MAX + 1))


STARTS = {
    "nothing": ({}, b"", StartRequest("fresh", "light", {})),
    "all": (
        {},
        b'{"id": "d-1", "context": {"limit": 3}, "version": "2", "actor": "ann"}',
        StartRequest("d-1", "light", {"limit": 3}, "2", "ann"),
    ),
    "an actor in the headers": ({"Ce-Actor": "ann"}, b"{}", StartRequest("fresh", "light", {}, None, "ann")),
    "a CloudEvent": (
        STRUCTURED,
        cloud(actor="bob", data={"id": "d-1", "context": {"limit": 3}}),
        StartRequest("d-1", "light", {"limit": 3}, None, "bob"),
    ),
    "a CloudEvent without data": (STRUCTURED, cloud(), StartRequest("fresh", "light", {})),
}


@pytest.mark.parametrize(("headers", "payload", "expected"), STARTS.values(), ids=STARTS)
def test_start(headers: dict[str, str], payload: bytes, expected: StartRequest) -> None:
    assert decode_start("light", "fresh", headers, payload) == expected


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"{", "expected the start to be JSON"),
        (b"[]", "the start has not the expected form"),
        (b'{"id": 5}', "$.id"),
        (b'{"id": "a b"}', "an instance id"),
        (b'{"context": [1]}', "$.context"),
        (b'{"contxt": {}}', "contxt"),
        (cloud(data=[1]), "the start in the CloudEvent's data"),
    ],
)
def test_bad_start(payload: bytes, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        decode_start("light", "fresh", None, payload)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "the control request"),
        (b"{}", "action"),
        (b'{"action": "explode"}', "explode"),
        (b'{"action": "pause", "why": 1}', "why"),
        (b'{"action": "pause", "reason": 1}', "$.reason"),
    ],
)
def test_bad_control(payload: bytes, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        decode_control("d-17", payload)
    assert message in str(caught.value)


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(text, values, text, text, text, st.integers(0, 2**62))
def test_what_is_encoded_is_decoded(name: str, data: Any, event_id: str, source: str, actor: str, at: int) -> None:
    event = ExternalEvent("d-17", name, data, event_id, source, actor, at)
    headers, payload = encode_event(event)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert decode_event("d-17", headers, payload) == event


def test_start_and_control_are_decoded_as_encoded() -> None:
    start = StartRequest("d-1", "light", {"limit": 3}, "2", "ann")
    assert decode_start("light", None, None, encode_start(start, with_id=True)) == start
    assert decode_start("light", "other", None, encode_start(start, with_id=False)).instance_id == "other"
    control = ControlRequest("d-1", "cancel", "no longer needed", "ann")
    assert decode_control("d-1", encode_control(control)) == control


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.000000001z", 1),
        ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
        ("2000-02-29T12:00:00+05:30", 951_805_800_000_000_000),
        ("1969-12-31T23:59:59Z", -1_000_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ("1990-12-31T15:59:60-08:00", 662_688_000_000_000_000),
    ],
)
def test_times(moment: str, expected: int) -> None:
    assert parse_time("the time", moment) == expected


@pytest.mark.parametrize(
    "moment",
    [
        "", "2026-05-17", "2026-05-17T09:30:00", "2026-13-17T09:30:00Z", "2026-05-17T24:30:00Z", "2026-05-17T09:30:61Z",
        "2026-05-17T09:30:00+24:00", "2026-05-17T09:30:00.Z", "٢٠٢٦-05-17T09:30:00Z", "0000-05-17T09:30:00Z", "x" * 500,
    ],
)  # fmt: skip
def test_bad_times(moment: str) -> None:
    with pytest.raises(InvalidError, match="RFC 3339") as caught:
        parse_time("the time", moment)
    assert len(str(caught.value)) < 200


@given(st.integers(0, 2**62))
def test_times_are_parsed_as_formatted(at: int) -> None:
    assert parse_time("the time", format_time(at)) == at
