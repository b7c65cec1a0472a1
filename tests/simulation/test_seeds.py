"""A thousand seeds, and those that have failed before."""

from __future__ import annotations

import pytest

from tests.simulation.run import run_all

SEEDS = 1_000
CHUNK = 50

FOUND = {
    265: "a child that was cancelled before its start was performed was started after that, and left alone",
    370: "likewise",
    389: "likewise, by a process that had been given up for dead",
    5485: "a process given up for dead reported as failed what another had delivered",
}
"""Seeds that failed, and what was wrong then."""


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_whatever_goes_wrong_nothing_is_lost_and_nothing_is_done_twice(first: int) -> None:
    """A failure prints the command that replays it."""
    failed = [str(verdict) for verdict in run_all(range(first, first + CHUNK)) if verdict.violations]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_stays_found(seed: int) -> None:
    (verdict,) = run_all([seed])
    assert verdict.violations == []
