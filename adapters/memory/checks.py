"""What a database refuses of the rows of a transaction, before anything of it is written. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping

from eventsourcing.persistence import DataError, IntegrityError

from statewright.adapters.memory.rows import refuse_nul
from statewright.adapters.memory.upkeep import ENDS
from statewright.engine.recorder import Changes, EffectRow, InboxRow, last_ends

_DIGEST_BYTES = 16


def check(changes: Changes, inbox: Mapping[str, Container[tuple[str, str]]], effects: Mapping[str, EffectRow]) -> None:
    """Raise what a database raises for rows that it can't take beside those that it has: identities by instance,
    effects by their ids."""
    for rows in (changes.inbox, changes.instances, changes.timers_set, changes.effects_requested, changes.steps):
        refuse_nul(rows)
    refuse_nul(changes.effects_ended)
    _check_identities(changes.inbox, inbox)
    asked: set[str] = set()
    for effect in changes.effects_requested:
        if effect.effect_id in asked or effect.effect_id in effects:
            raise IntegrityError(f"expected an effect that is not there yet, got '{effect.effect_id}'")
        asked.add(effect.effect_id)
    for state, _, effect_id in last_ends(changes.effects_ended):
        before = effects.get(effect_id)
        if before is not None and {before.state, state} == ENDS:
            raise IntegrityError(f"expected effect '{effect_id}' not to have ended as {before.state}, got {state}")


def _check_identities(rows: list[InboxRow], inbox: Mapping[str, Container[tuple[str, str]]]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        if len(row.digest) != _DIGEST_BYTES:
            raise DataError(f"expected digests of {_DIGEST_BYTES} bytes, got {len(row.digest)}")
        if row[:3] in seen or (row.source, row.event_id) in inbox.get(row.instance_id, ()):
            raise IntegrityError(f"expected an identity that is not in the inbox, got {row[:3]}")
        seen.add(row[:3])
