"""The example, run: the chart on a virtual clock, and the whole with its world on a nats-server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from statewright.engine import Engine, InstanceFilter
from statewright.examples.reactive_approval.main import CHART, main
from statewright.statecharts.simulate import Simulation, parse_token
from tests.test_readme import ROOT

FOLDER = ROOT / "examples" / "reactive_approval"
LARGE = 'data.processed={"amount": 10001}'
ASKED = (LARGE, "+200ms", "done.effect.notify")
LATE = (*ASKED, "timer.expired", "done.effect.notify")
BY_BOB = '={"by": "bob"}'


@pytest.mark.parametrize(
    ("tokens", "leaf"),
    [
        ((), "awaiting_data"),
        (('data.processed={"amount": 10000}',), "booking"),
        ((LARGE,), "fresh"),
        ((LARGE, "+199ms"), "fresh"),
        ((LARGE, "+200ms"), "reminding"),
        ((LARGE, "timer.expired"), "fresh"),
        (ASKED, "reminded"),
        ((LARGE, "+200ms", 'error.effect.notify={"message": "no mail"}'), "reminded"),
        (LATE, "escalated"),
        ((LARGE, 'approve={"by": "ann"}'), "fresh"),
        ((*LATE, 'approve={"by": "ann"}'), "escalated"),
        ((LARGE, f"approve{BY_BOB}"), "booking"),
        ((*LATE, f"approve{BY_BOB}"), "booking"),
        ((*ASKED, f"reject{BY_BOB}"), "rejected"),
        ((LARGE, f"approve{BY_BOB}", 'done.effect.book={"reference": "b/1"}'), "booked"),
        ((LARGE, f"approve{BY_BOB}", 'error.effect.book={"message": "the disk is full"}'), "not_booked"),
    ],
)
def test_each_way_through_the_chart(tokens: tuple[str, ...], leaf: str) -> None:
    simulation = Simulation(CHART, {"requester": "ann"})
    lines = [simulation.begin(), *(simulation.feed(parse_token(token)) for token in tokens)]
    assert lines[-1].leaves == (leaf,)


@pytest.mark.integration
async def test_what_is_said_again_is_recorded_once(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    stories = await main(tmp_path, store)
    assert stories["order-1"] == [
        "start -> awaiting_data",
        "data.processed -> booking",
        "done.effect.book -> booked",
    ]
    assert stories["order-2"][-2:] == ["approve -> booking", "done.effect.book -> booked"]
    assert await main(tmp_path, store) == stories
    booked = json.loads((tmp_path / "booked" / "order-2.json").read_text())
    assert booked == {"amount": 25_000, "decided_by": "mia"}
    async with Engine.open(store, read_only=True) as engine:
        rows = await engine.list(InstanceFilter())
        assert {row.id: (row.status, row.sequence) for row in rows} == {
            "order-1": ("completed", 3),
            "order-2": ("completed", 9),
        }
        assert {effect.state for row in rows for effect in await engine.effects(row.id)} <= {"done"}


@pytest.mark.integration
def test_the_program_tells_the_story(tmp_path: Path) -> None:
    program = [sys.executable, str(FOLDER / "main.py"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = (FOLDER / "README.md").read_text().partition("$ python main.py\n")[2].partition("```")[0]
    assert done.stdout.startswith(shown)
