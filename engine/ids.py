"""Ids of instances and events: which are valid, and new ones that sort by time (UUID version 7, RFC 9562 5.7)."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable

from statewright.engine.errors import InvalidError

Ids = Callable[[int], str]
"""Makes a new id, by the time (ns UTC)."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def new_id(now: int) -> str:
    """A UUIDv7 for `now` (ns UTC): 48 bits of milliseconds, then random bits."""
    value = (now // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    return str(uuid.UUID(int=value))


def instance_of(effect_id: str) -> str:
    """The instance of an effect, whose id is instance-sequence-index."""
    return effect_id.rsplit("-", 2)[0]


def check_id(what: str, value: object) -> str:
    """`value` if it is an id of the form that subjects and rows can carry; `what` names it in the error."""
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    shown = repr(value) if len(repr(value)) <= 150 else repr(value)[:147] + "..."
    raise InvalidError(f"expected {what} of the form [A-Za-z0-9_-]{{1,128}}, got {shown}")
