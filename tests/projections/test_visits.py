"""The way of an instance: what it entered and took, how often, and where it is or ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statewright.engine import Engine
from statewright.projections.visits import Visits, visits
from statewright.statecharts import Chart

CHART = Chart.from_tree(
    {
        "name": "review",
        "context": {"amount": "int"},
        "initial": "draft",
        "on": {"note": {"actions": [{"log": {"expr": "'noted'"}}]}, "restart": "draft"},
        "states": {
            "draft": {
                "on": {
                    "submit": [
                        {"target": "small", "guard": "context.amount < 100"},
                        {"target": "large", "guard": "context.amount >= 1000"},
                        {"target": "large"},
                    ]
                }
            },
            "small": {"always": "done"},
            "large": {"on": {"approve decide": "done", "back": "draft", "fail": {"actions": [{"raise": "lost"}]}}},
            "done": {"type": "final"},
        },
    }
)


async def way(folder: Path, amount: int, *events: str) -> Visits:
    async with Engine.open(f"sqlite:///{folder}/visits.db", charts=[CHART]) as engine:
        await engine.start("review", {"amount": amount}, id="r-1")
        for event in events:
            await engine.send("r-1", event)
        return visits(CHART, await engine.history("r-1"))


def named(found: Visits) -> dict[tuple[str, Any, str], int]:
    """(source, targets, guard) of each transition taken -> how often."""
    machine = CHART.machine.transitions
    return {
        (machine[order].owner.id, machine[order].target_ids, machine[order].guard): count
        for order, count in found.taken.items()
    }


async def test_an_instance_under_way(tmp_path: Path) -> None:
    found = await way(tmp_path, 500, "note", "submit", "back", "submit", "unknown", "note")
    assert (found.instance, found.status, found.configuration) == ("r-1", "active", ("large",))
    assert found.entered == {"draft": 2, "large": 2}
    assert named(found) == {
        ("", (), ""): 2,
        ("draft", ("large",), ""): 2,
        ("large", ("draft",), ""): 1,
    }


async def test_of_transitions_between_the_same_states_the_one_whose_guard_held(tmp_path: Path) -> None:
    found = await way(tmp_path, 5_000, "submit")
    assert named(found) == {("draft", ("large",), "context.amount >= 1000"): 1}


async def test_a_completed_instance_shows_where_it_ended(tmp_path: Path) -> None:
    found = await way(tmp_path, 5, "submit")
    assert (found.status, found.configuration) == ("completed", ("done",))
    assert found.entered == {"draft": 1, "small": 1, "done": 1}
    assert named(found) == {("draft", ("small",), "context.amount < 100"): 1, ("small", ("done",), ""): 1}


@pytest.mark.parametrize("event", ["approve", "decide"])
async def test_any_of_its_events_counts_for_a_transition(tmp_path: Path, event: str) -> None:
    found = await way(tmp_path, 500, "submit", event)
    assert named(found)["large", ("done",), ""] == 1


async def test_a_transition_of_the_chart_itself(tmp_path: Path) -> None:
    found = await way(tmp_path, 500, "submit", "restart")
    assert (found.configuration, named(found)["", ("draft",), ""]) == (("draft",), 1)
