"""Load balancing: which instance of a service gets the next call. Pure.

A strategy is a function (candidates, turn) -> (the chosen candidate's id, the next turn). The candidates are those that
may be chosen now, at least one, always in the same order; `turn` is all that is remembered between two calls.
Invariants: the same arguments give the same choice; an instance that comes or goes costs no other its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

OVERLOAD = 0.9
"""From this load on an instance is overloaded, and chosen only if all are."""
RELIEF = 0.8
"""Below this load it is so no longer: lower than `OVERLOAD`, so that the signal doesn't flutter."""
UNKNOWN_LOAD = 0.5
"""What an instance counts as that says nothing of its load."""

StrategyName = Literal["round_robin", "least_connections", "weighted_round_robin", "resource_based"]


class Candidate(msgspec.Struct, frozen=True):
    """An instance as a strategy sees it. `weight` is from 1; `in_flight` counts the calls under way; `load` is 0..1,
    None if nothing is known of it."""

    id: str
    weight: int = 1
    in_flight: int = 0
    load: float | None = None


class Turn(msgspec.Struct, frozen=True):
    """Whose turn it was: `last` was chosen last; `owed` is what smooth weighted round robin owes to each."""

    last: str = ""
    owed: Mapping[str, int] = {}


Strategy = Callable[[Sequence[Candidate], Turn], tuple[str, Turn]]


def round_robin(candidates: Sequence[Candidate], turn: Turn) -> tuple[str, Turn]:
    """The one after the last in the order of ids, and after the last of all the first."""
    ids = sorted(candidate.id for candidate in candidates)
    chosen = next((name for name in ids if name > turn.last), ids[0])
    return chosen, Turn(chosen)


def least_connections(candidates: Sequence[Candidate], turn: Turn) -> tuple[str, Turn]:
    """The one with the fewest calls under way; those with as few take turns."""
    fewest = min(candidate.in_flight for candidate in candidates)
    return round_robin([candidate for candidate in candidates if candidate.in_flight == fewest], turn)


def weighted_round_robin(candidates: Sequence[Candidate], turn: Turn) -> tuple[str, Turn]:
    """By weight, spread evenly (nginx's smooth weighted round robin): 5, 1, 1 gives a a b a c a a."""
    owed = {candidate.id: turn.owed.get(candidate.id, 0) + candidate.weight for candidate in candidates}
    chosen = max(sorted(owed), key=owed.__getitem__)
    owed[chosen] -= sum(candidate.weight for candidate in candidates)
    return chosen, Turn(chosen, owed)


def resource_based(candidates: Sequence[Candidate], turn: Turn) -> tuple[str, Turn]:
    """The one with the least load; of those with as little the one with the fewest calls under way."""
    least = min(_load(candidate) for candidate in candidates)
    return least_connections([candidate for candidate in candidates if _load(candidate) == least], turn)


def _load(candidate: Candidate) -> float:
    return UNKNOWN_LOAD if candidate.load is None else candidate.load


STRATEGIES: Mapping[StrategyName, Strategy] = {
    "round_robin": round_robin,
    "least_connections": least_connections,
    "weighted_round_robin": weighted_round_robin,
    "resource_based": resource_based,
}


def is_overloaded(load: float | None, was_overloaded: bool) -> bool:
    """Whether an instance with this load is overloaded, given whether it was so before."""
    return load is not None and load >= (RELIEF if was_overloaded else OVERLOAD)
