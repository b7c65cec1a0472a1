"""Facts to stored events and back: msgspec JSON, fixed topics, upcasting by schema version.

The topic of a fact is its tag ("transition_taken"), not a Python path, so that moving a class breaks no log.
Compression and encryption are the `eventsourcing` library's, in its order (compress, then encrypt). What is read says
by its first byte which of them it went through, so each can be switched on for a log that was begun without.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent

from statewright.engine.cipher import KEYS, Ring, is_sealed, key_name
from statewright.engine.errors import InvalidError
from statewright.engine.events import SCHEMA, AnyFact, Fact
from statewright.engine.instance import Instance

SNAPSHOT_TOPIC = "instance_snapshot"

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTS: dict[int, Upcast] = {}
"""Schema version -> how the JSON of a fact of that version becomes the next version's."""

_encode = msgspec.json.Encoder().encode
_decode_fact: Callable[[bytes], Fact] = msgspec.json.Decoder(AnyFact).decode


class InstanceSnapshot(msgspec.Struct, frozen=True, tag_field="type", tag=SNAPSHOT_TOPIC):
    """A folded instance, kept to make loading cheap; never the truth. One whose `schema` or definition digest is not
    the current one is ignored and the facts are folded again."""

    instance: Instance
    schema: int = SCHEMA

    @property
    def originator_id(self) -> str:
        return self.instance.id

    @property
    def originator_version(self) -> int:
        return self.instance.sequence


_decode_snapshot = msgspec.json.Decoder(InstanceSnapshot).decode
_TOPICS = {kind: str(kind.__struct_config__.tag) for kind in (*AnyFact.__args__, InstanceSnapshot)}


class FactMapper(Mapper[str]):
    """The `eventsourcing` mapper for facts."""

    @cached_property
    def ring(self) -> Ring | None:
        """What encrypts. Raises `InvalidError` for a cipher of another kind, which would leave rows readable."""
        if self.cipher is not None and not isinstance(self.cipher, Ring):
            raise InvalidError(f"expected encryption by {KEYS}, got CIPHER_TOPIC or CIPHER_KEY with another cipher")
        return self.cipher

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        state = _encode(domain_event)
        if self.compressor:
            state = self.compressor.compress(state)
        instance_id, sequence, topic = (
            domain_event.originator_id,
            domain_event.originator_version,
            _TOPICS[type(domain_event)],
        )
        if (ring := self.ring) is not None:
            state = ring.encrypt(state, f"{topic} {instance_id} {sequence}")
        return StoredEvent(instance_id, sequence, topic, state)

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """The fact or snapshot. Raises `MapperDeserialisationError` naming the place when it can't be read."""
        try:
            state = stored_event.state
            if state[:1] != b"{":
                state = self._plain(stored_event)
            if stored_event.topic == SNAPSHOT_TOPIC:
                return _decode_snapshot(state)
            return _read_fact(state)
        except Exception as error:
            raise MapperDeserialisationError(
                f"expected a stored '{stored_event.topic}' of instance '{stored_event.originator_id}' at sequence "
                f"{stored_event.originator_version}, but its state can't be read: {error}"
            ) from error

    def _plain(self, stored: StoredEvent) -> bytes:
        state = stored.state
        if isinstance(state, str):  # Somebody has changed it with SQL.
            return str(state).encode()
        if is_sealed(state):
            if (ring := self.ring) is None:
                raise InvalidError(f"it is encrypted with key '{key_name(state)}': set {KEYS} or {KEYS}_FILE")
            state = ring.decrypt(state, f"{stored.topic} {stored.originator_id} {stored.originator_version}")
        if state[:1] != b"{":
            state = (self.compressor or zlib).decompress(state)
        return state


class _Header(msgspec.Struct):
    schema: int


_decode_header = msgspec.json.Decoder(_Header).decode


def _read_fact(state: bytes) -> Fact:
    schema = _decode_header(state).schema
    if schema == SCHEMA:
        return _decode_fact(state)
    if schema > SCHEMA:
        raise ValueError(f"it has schema {schema}, this version reads up to {SCHEMA}; upgrade Statewright")
    raw = msgspec.json.decode(state)
    for version in range(schema, SCHEMA):
        raw = UPCASTS[version](raw)
    raw["schema"] = SCHEMA
    fact: Fact = msgspec.convert(raw, AnyFact)
    return fact
