"""Leases in memory, as a table by name. The clock is the caller's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence

from statewright.engine.errors import LeaseLostError
from statewright.engine.recorder import Lease


def acquire(
    table: MutableMapping[str, Lease], owner: str, names: Collection[str], now: int, ttl_ns: int
) -> list[Lease]:
    taken: list[Lease] = []
    for name in sorted(set(names)):
        held = table.get(name, Lease(name, "", 0, now))
        if held.owner == owner or held.expires_at <= now:
            table[name] = Lease(name, owner, held.epoch + (held.owner != owner), now + ttl_ns)
            taken.append(table[name])
    return taken


def renew(table: MutableMapping[str, Lease], owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
    kept = [table[name] for name in sorted(set(names)) if name in table and table[name].owner == owner]
    table.update((lease.name, lease._replace(expires_at=now + ttl_ns)) for lease in kept)
    return [table[lease.name] for lease in kept]


def release(table: MutableMapping[str, Lease], owner: str, names: Collection[str]) -> None:
    held = [table[name] for name in names if name in table and table[name].owner == owner]
    table.update((lease.name, lease._replace(owner="", expires_at=0)) for lease in held)


def require(table: Mapping[str, Lease], leases: Sequence[Lease]) -> None:
    """Raise `LeaseLostError` unless all are still what they were, but for when they expire."""
    for lease in leases:
        found = table.get(lease.name)
        if found is None or (found.owner, found.epoch) != (lease.owner, lease.epoch):
            now = f"'{found.owner}' with epoch {found.epoch}" if found else "nobody"
            raise LeaseLostError(
                f"expected lease '{lease.name}' to be held by '{lease.owner}' with epoch {lease.epoch}, it is {now}"
            )
