"""Positions in the log when several write at once, which a SQLite file has no room for."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from statewright.engine.recorder import Changes
from tests.contracts.recorders import PostgresHarness
from tests.contracts.rows import event


@pytest.mark.parametrize("seen_first", [True, False])
def test_no_follower_passes_a_position_that_is_not_committed(tmp_path: Path, seen_first: bool) -> None:
    """While one transaction is open, another writer's facts either wait for it or come before what it will show."""
    harness = PostgresHarness(tmp_path)
    first, second, follower = harness.open(), harness.open(), harness.open()
    if seen_first:
        first.insert_events([event("z", 1)])
    other = Thread(target=lambda: second.insert_events([event("b", 1)]))
    with harness.uncommitted(first, [event("a", 1), event("a", 2)], Changes()):
        other.start()
        other.join(0.3)
        seen = [entry.id for entry in follower.select_notifications(None, 10)]
        assert len(seen) == int(seen_first)
        assert other.is_alive()
    other.join()
    position = seen[-1] if seen else 0
    rest = follower.select_notifications(position, 10, inclusive_of_start=False)
    assert [(entry.originator_id, entry.originator_version) for entry in rest] == [("a", 1), ("a", 2), ("b", 1)]
    harness.close()
