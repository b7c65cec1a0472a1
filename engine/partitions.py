"""Which partition an instance belongs to: FNV-1a-32 of its id, as `partition()` of a nats-server computes it."""

from __future__ import annotations

from functools import lru_cache

_OFFSET = 0x811C9DC5
_PRIME = 0x01000193


@lru_cache(maxsize=65_536)
def partition_of(instance_id: str, partitions: int) -> int:
    """A number from 0 to `partitions` - 1."""
    value = _OFFSET
    for byte in instance_id.encode():
        value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
    return value % partitions
