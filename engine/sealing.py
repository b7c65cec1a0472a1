"""Sealing: the rows beside the facts, encrypted on their way into a store and decrypted on their way out.

`sealed(recorder, ring)` is the recorder again, whichever store it is of: every row that is given to any of its methods
is sealed by its type, and every row that comes back is opened. What is sealed is what users bring: an instance's
context and failure, effects' data and errors, the events of timers, ids and digests of the inbox, parked messages.
What stays readable is what a store is searched by: ids of instances, names of definitions and states, times.
(Facts and snapshots are encrypted by the mapper.)

Invariants: sealing and opening are inverse; a sealed JSON column is still JSON (a string); a row of another
place doesn't open here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from statewright.engine.cipher import Ring, is_sealed
from statewright.engine.recorder import Changes, EffectRow, InboxRow, InstanceRecorder, InstanceRow, ParkedRow, TimerRow

WITHHELD = "(encrypted)"
"""What a reader without the key is given for a text; for JSON it is null."""
OWN_SOURCES = "statewright/"
"""Sources of the engine itself, whose ids are made of instance ids and numbers."""

R = TypeVar("R")


def sealed(recorder: InstanceRecorder, ring: Ring) -> InstanceRecorder:
    """`recorder`, whose rows are encrypted with `ring`."""
    return cast(InstanceRecorder, _Sealed(recorder, ring))


def withheld(recorder: InstanceRecorder) -> InstanceRecorder:
    """`recorder` of an encrypted store, to be read without its key: what is encrypted is left out."""
    return cast(InstanceRecorder, _Sealed(recorder, None))


class _Sealed:
    """Forwards everything; those methods that are given texts rather than rows are here."""

    def __init__(self, recorder: InstanceRecorder, ring: Ring | None) -> None:
        self._recorder = recorder
        self._ring = ring

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._recorder, name)
        if not callable(found):
            return found
        ring = self._ring

        @wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = [_sealed(ring, arg) for arg in args]
            named = {key: _sealed(ring, arg) for key, arg in kwargs.items()}
            return _opened(ring, found(*given, **named))

        setattr(self, name, call)  # Looked up once.
        return call

    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None:
        wanted = _sealed(self._ring, InboxRow(instance_id, source, event_id, 0, bytes(16)))
        return cast("InboxRow | None", _opened(self._ring, self._recorder.find_inbox(*wanted[:3])))

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str, **more: Any) -> bool:
        hidden = _hidden(self._ring, error, f"effects.error {effect_id}") if self._ring is not None else error
        return self._recorder.retry_effect(effect_id, lease_epoch, due_at, hidden, **more)

    def extend_effect(self, effect_id: str, lease_epoch: int, due_at: int, details: str) -> bool:
        hidden = _hidden(self._ring, details, f"effects.details {effect_id}") if self._ring is not None else details
        return self._recorder.extend_effect(effect_id, lease_epoch, due_at, hidden)


def seal_row(ring: Ring, row: R) -> R:
    """The row as it is stored; as it is, if nothing of its type is sealed."""
    seal = _SEALS.get(type(row))
    return seal(ring, row) if seal is not None else row


def open_row(ring: Ring | None, row: R) -> R:
    """The row as it was given. A column that is not sealed is taken as it is. Raises `InvalidError`."""
    unseal = _OPENS.get(type(row))
    return unseal(ring, row) if unseal is not None else row


def _sealed(ring: Ring | None, value: Any) -> Any:
    if ring is None:
        return value
    if isinstance(value, Changes):
        return _sealed_changes(ring, value)
    if type(value) in _SEALS:
        return seal_row(ring, value)
    if isinstance(value, list | tuple) and value and type(value[0]) in _SEALS:
        return [seal_row(ring, row) for row in value]
    return value


def _opened(ring: Ring | None, value: Any) -> Any:
    if type(value) in _OPENS:
        return open_row(ring, value)
    if isinstance(value, Sequence) and value and type(value[0]) in _OPENS:
        return [open_row(ring, row) for row in value]
    return value


def _sealed_changes(ring: Ring, changes: Changes) -> Changes:
    return replace(
        changes,
        inbox=[_seal_inbox(ring, row) for row in changes.inbox],
        instances=[_seal_instance(ring, row) for row in changes.instances],
        timers_set=[_seal_timer(ring, row) for row in changes.timers_set],
        effects_requested=[_seal_effect(ring, row) for row in changes.effects_requested],
        effects_ended=[
            (state, _hidden(ring, error, f"effects.error {effect_id}"), effect_id)
            for state, error, effect_id in changes.effects_ended
        ],
    )


def _seal_instance(ring: Ring, row: InstanceRow) -> InstanceRow:
    return row._replace(
        context=f'"{ring.seal(row.context, f"instances.context {row.id}")}"',
        failure=_hidden(ring, row.failure, f"instances.failure {row.id}"),
    )


def _open_instance(ring: Ring | None, row: InstanceRow) -> InstanceRow:
    return row._replace(
        context=_shown(ring, row.context, f"instances.context {row.id}"),
        failure=_shown(ring, row.failure, f"instances.failure {row.id}"),
    )


def _seal_effect(ring: Ring, row: EffectRow) -> EffectRow:
    return row._replace(
        data=f'"{ring.seal(row.data, f"effects.data {row.effect_id}")}"',
        error=_hidden(ring, row.error, f"effects.error {row.effect_id}"),
        details=_hidden(ring, row.details, f"effects.details {row.effect_id}"),
    )


def _open_effect(ring: Ring | None, row: EffectRow) -> EffectRow:
    return row._replace(
        data=_shown(ring, row.data, f"effects.data {row.effect_id}"),
        error=_shown(ring, row.error, f"effects.error {row.effect_id}"),
        details=_shown(ring, row.details, f"effects.details {row.effect_id}"),
    )


def _seal_timer(ring: Ring, row: TimerRow) -> TimerRow:
    return row._replace(event=_hidden(ring, row.event, f"timers.event {row.instance_id}"))


def _open_timer(ring: Ring | None, row: TimerRow) -> TimerRow:
    return row._replace(event=_shown(ring, row.event, f"timers.event {row.instance_id}"))


def _seal_inbox(ring: Ring, row: InboxRow) -> InboxRow:
    place = row.instance_id
    if not row.source.startswith(OWN_SOURCES):
        source = ring.seal_id(row.source, f"source {place}") if row.source else ""
        row = row._replace(source=source, event_id=ring.seal_id(row.event_id, f"event {place}"))
    return row._replace(digest=ring.seal_digest(row.digest))


def _open_inbox(ring: Ring | None, row: InboxRow) -> InboxRow:
    place = row.instance_id
    if ring is None:
        return row
    if not row.source.startswith(OWN_SOURCES):
        source = ring.unseal_id(row.source, f"source {place}") if row.source else ""
        row = row._replace(source=source, event_id=ring.unseal_id(row.event_id, f"event {place}"))
    return row._replace(digest=ring.unseal_digest(row.digest))


def _seal_parked(ring: Ring, row: ParkedRow) -> ParkedRow:
    return row._replace(
        reason=_hidden(ring, row.reason, f"parked.reason {row.parked_id}"),
        headers=f'"{ring.seal(row.headers, f"parked.headers {row.parked_id}")}"',
        payload=ring.encrypt(row.payload, f"parked.payload {row.parked_id}"),
    )


def _open_parked(ring: Ring | None, row: ParkedRow) -> ParkedRow:
    payload = row.payload
    if is_sealed(payload):
        payload = b"" if ring is None else ring.decrypt(payload, f"parked.payload {row.parked_id}")
    return row._replace(
        reason=_shown(ring, row.reason, f"parked.reason {row.parked_id}"),
        headers=_shown(ring, row.headers, f"parked.headers {row.parked_id}"),
        payload=payload,
    )


def _hidden(ring: Ring, text: str, place: str) -> str:
    """Sealed unless it is empty: whether there is an error is no secret, and is asked for."""
    return ring.seal(text, place) if text else ""


def _shown(ring: Ring | None, text: str, place: str) -> str:
    if not is_sealed(text):
        return text
    if ring is None:
        return "null" if text.startswith('"') else WITHHELD
    return ring.unseal(text.strip('"'), place)


_SEALS: dict[type[Any], Callable[[Ring, Any], Any]] = {
    InstanceRow: _seal_instance,
    EffectRow: _seal_effect,
    TimerRow: _seal_timer,
    InboxRow: _seal_inbox,
    ParkedRow: _seal_parked,
}
_OPENS: dict[type[Any], Callable[[Ring | None, Any], Any]] = {
    InstanceRow: _open_instance,
    EffectRow: _open_effect,
    TimerRow: _open_timer,
    InboxRow: _open_inbox,
    ParkedRow: _open_parked,
}
