"""Caches with a bound: they hold only what can be computed again, and are emptied when they are full."""

from __future__ import annotations

from typing import TypeVar

CACHED_MAX = 2048
"""Entries of a machine's cache (event names, configurations, joint plans)."""
PLANS_MAX = 256
"""Entries of one transition's or one event's cache."""
JOINT_MAX = 16
"""Of what more transitions than these do together little is kept: there is one for every combination, they are long."""
WIDE_MAX = 4
"""How much of that: a chart that fans out does so in the same way every time."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def keep(cache: dict[_Key, _Value], key: _Key, value: _Value, most: int = CACHED_MAX) -> _Value:
    """Put `value` into the cache and give it back."""
    if len(cache) >= most:
        cache.clear()
    cache[key] = value
    return value
