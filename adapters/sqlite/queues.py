"""The queues in which effects wait, in SQL: of kind "perform" one for each name, of another kind one for all.

Invariant: what waits in queues that nobody asks for is never looked at, however much it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from statewright.adapters.sqlite.schema import OPEN

QUEUE = f"{OPEN} AND kind = ? AND iif(kind = 'perform', name, '') = ?"
"""The effects of one queue, in the words of the index `effects_waiting`."""
OPEN_KINDS = f"""WITH RECURSIVE found(kind) AS (
        SELECT min(kind) FROM effects WHERE {OPEN}
        UNION ALL
        SELECT (SELECT min(kind) FROM effects WHERE {OPEN} AND kind > found.kind)
        FROM found WHERE found.kind IS NOT NULL
    ) SELECT kind FROM found WHERE kind IS NOT NULL"""
"""One look into the index for each kind in which something waits."""
QUEUES_FEW = 32
"""Up to how many queues it is not worth asking which are open."""
TERMS_MAX = 250
"""Of one compound SELECT; SQLite takes no more than 500."""


def queues_of(names: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, name) of each queue."""
    return [("perform", name) for name in names] + [(kind, "") for kind in kinds if kind != "perform"]


def union(one: str, count: int) -> str:
    """`one` as often as that, nested where SQLite would not take so many."""
    parts = [" UNION ALL ".join([one] * min(TERMS_MAX, count - at)) for at in range(0, count, TERMS_MAX)]
    return parts[0] if len(parts) == 1 else " UNION ALL ".join(f"SELECT * FROM ({part})" for part in parts)
