"""Changes of a list of active states: what a macrostep of a wide configuration is recorded with, instead of all of it.

A splice is (index, removed, inserted): at `index` of the list before, `removed` ids go and `inserted` come in their
place. Invariant: `spliced(names before, splices(before, after)) == names after`, at a cost that grows with what changed
(and with the list only as far as copying it does). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statewright.statecharts.machine import ChartState

Splice = tuple[int, int, tuple[str, ...]]


def splices(by_index: Sequence[ChartState], before: int, after: int) -> tuple[Splice, ...]:
    """From one configuration to another, as bits of the machine whose states are `by_index`; in order."""
    found: list[tuple[int, int, list[str]]] = []
    changed = (before ^ after) & ~1
    while changed:
        lowest = changed & -changed
        changed ^= lowest
        index = (before & (lowest - 1) & ~1).bit_count()
        if not found or sum(found[-1][:2]) != index:
            found.append((index, 0, []))
        at, removed, inserted = found[-1]
        if before & lowest:
            found[-1] = (at, removed + 1, inserted)
        else:
            inserted.append(by_index[lowest.bit_length() - 1].id)
    return tuple([(at, removed, tuple(inserted)) for at, removed, inserted in found])


def spliced(names: tuple[str, ...], changes: Sequence[Splice]) -> tuple[str, ...]:
    """The list after `changes` to `names`."""
    if len(changes) == 1:
        ((at, removed, inserted),) = changes
        return names[:at] + inserted + names[at + removed :]
    parts: list[str] = []
    done = 0
    for at, removed, inserted in changes:
        parts += names[done:at]
        parts += inserted
        done = at + removed
    parts += names[done:]
    return tuple(parts)
