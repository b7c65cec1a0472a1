"""Replies: what a request door answers, as JSON and back. Pure.

A reply is an outcome (or what was started, or a status row), or `{"error": {"code", "message"}}` with a code of the
error tree. What is no `StatewrightError` is a fault of ours: it is answered as "unavailable", since nothing can be said
about what was recorded, and sending again (with the same id) is right.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from statewright.engine.errors import (
    AlreadyExistsError,
    BusyError,
    IdReusedError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from statewright.engine.recorder import InstanceRow, ScheduleRow
from statewright.engine.requests import Outcome, Started
from statewright.projections.schedules import schedule_json
from statewright.projections.status import status_json
from statewright.statecharts.errors import StatewrightError

RETRYABLE = frozenset({"busy", "unavailable"})
"""Codes of errors that say nothing against the request itself: the same may be accepted later."""

_ERRORS: dict[str, type[StatewrightError]] = {
    error.code: error
    for error in (
        InvalidError,
        NotFoundError,
        AlreadyExistsError,
        IdReusedError,
        BusyError,
        TooLargeError,
        UnavailableError,
    )
}


class Page(msgspec.Struct, frozen=True):
    """Part of what was asked for. `more`: there is more after it."""

    items: list[dict[str, Any]]
    more: bool


class Pruned(msgspec.Struct, frozen=True):
    """The ids of the instances that a prune has replaced by tombstones."""

    pruned: list[str]


A = TypeVar("A")
_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    code: str
    message: str


class _ErrorReply(msgspec.Struct):
    error: _Error


class _Probe(msgspec.Struct):
    """Tells an error from an answer."""

    error: _Error | None = None


_decode_probe = msgspec.json.Decoder(_Probe).decode


def encode_answer(answer: Outcome | Started | ScheduleRow) -> bytes:
    return _encode(schedule_json(answer) if isinstance(answer, ScheduleRow) else answer)


def encode_status(row: InstanceRow) -> bytes:
    """The row's columns by name, configuration and context as JSON values."""
    return _encode(status_json(row))


def encode_error(error: BaseException) -> bytes:
    return _encode(_ErrorReply(_Error(code_of(error), str(error) or type(error).__name__)))


def code_of(error: BaseException) -> str:
    """The wire's code for `error`; "unavailable" for what is not of our tree."""
    code = error.code if isinstance(error, StatewrightError) else ""
    return code if code in _ERRORS else "unavailable"


def decode_answer(payload: bytes, kind: type[A]) -> A:
    """The answer in a reply. Raises the error that it carries, `UnavailableError` if it is no reply of an engine."""
    try:
        failed = _decode_probe(payload).error
        if failed is None:
            return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise UnavailableError(f"expected the reply of an engine, got {payload[:100]!r}: {error}") from error
    raise _ERRORS.get(failed.code, UnavailableError)(failed.message)
