"""References: facts that are larger than the bus allows.

In place of such a fact the history carries `{"instance_id", "sequence", "time", "type", "reference": {"subject",
"bytes"}}`, with the subject in the header `Statewright-Reference` too. A request there with `{"offset": n}` is answered
with `{"offset", "total", "base64"}`: a piece of the fact's JSON as large as the bus allows. Asking on from
offset + length until the total is reached gives the whole. Pure.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from statewright.adapters.nats.envelope import decode_json
from statewright.engine.errors import InvalidError, NotFoundError
from statewright.engine.events import AnyFact
from statewright.engine.ids import check_id

PREFIX = "statewright.query.fact."
HEADER = "Statewright-Reference"
ROOM = 1_024
"""What headers and the envelope of an answer may take, in bytes."""

_encode = msgspec.json.Encoder().encode


class Piece(msgspec.Struct):
    """An answer."""

    offset: int
    total: int
    base64: str


def fits(size: int, payload_max: int) -> bool:
    """Whether a payload of `size` bytes can be published where messages may have `payload_max`."""
    return size + ROOM <= payload_max


def subject_of(fact: AnyFact) -> str:
    return f"{PREFIX}{fact.instance_id}.{fact.sequence}"


def encode_reference(fact: AnyFact, size: int) -> bytes:
    """What is published in place of `fact`, whose JSON has `size` bytes."""
    return _encode(
        {
            "instance_id": fact.instance_id,
            "sequence": fact.sequence,
            "time": fact.time,
            "type": fact.__struct_config__.tag,
            "reference": {"subject": subject_of(fact), "bytes": size},
        }
    )


def decode_place(subject: str) -> tuple[str, int]:
    """Instance and sequence that a subject asks for. Raises `InvalidError`."""
    instance_id, _, sequence = subject.removeprefix(PREFIX).partition(".")
    check_id("an instance id", instance_id)
    if not (sequence.isascii() and sequence.isdecimal() and 0 < len(sequence) < 19):
        raise InvalidError(f"expected a subject {PREFIX}<instance>.<sequence>, got '{subject[:200]}'")
    return instance_id, int(sequence)


def decode_offset(payload: bytes) -> int:
    """Where a request wants to read on; 0 without a payload. Raises `InvalidError`."""
    asked: Any = decode_json("the request for a fact", payload) or {}
    offset = asked.get("offset", 0) if isinstance(asked, dict) and asked.keys() <= {"offset"} else None
    if type(offset) is not int or offset < 0:
        raise InvalidError(f'expected {{"offset": n}} or no payload, got {payload[:60]!r}')
    return offset


def encode_piece(fact: AnyFact, offset: int, payload_max: int) -> bytes:
    """The piece from `offset` on. Raises `NotFoundError` behind the end."""
    whole = _encode(fact)
    if offset >= len(whole):
        raise NotFoundError(f"expected an offset below {len(whole)}, the size of the fact, got {offset}")
    size = max((payload_max - ROOM) // 4 * 3, 1)
    return _encode(Piece(offset, len(whole), base64.b64encode(whole[offset : offset + size]).decode()))
