"""The W3C IRP tests, transformed, in memory (see `w3c_irp.py`: what they are, and where they are)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from statewright.statecharts import Chart, load_chart
from statewright.statecharts.scxml import write_scxml
from statewright.statecharts.simulate import Simulation
from tests.statecharts.w3c_irp import FOLDER, IDS, TESTS, clause, skip_if_absent

pytestmark = skip_if_absent


@cache
def outcome(test: str) -> tuple[str, ...]:
    return end_of(load_chart(FOLDER / f"{test}.scxml"))


def end_of(chart: Chart) -> tuple[str, ...]:
    """The leaves in which a run of the chart ends, as `simulate --run` shows them."""
    simulation = Simulation(chart)
    simulation.begin()
    return simulation.run().leaves


@pytest.mark.parametrize("test", IDS)
def test_ends_in_pass(test: str) -> None:
    assert outcome(test) == ("pass",), clause(test)


def test_the_claim() -> None:
    passed = sum(outcome(test["id"]) == ("pass",) for test in TESTS)
    assert (
        f"passes {passed} of {len(TESTS)} W3C IRP tests, transformed" == "passes 163 of 163 W3C IRP tests, transformed"
    )


@pytest.mark.parametrize("test", IDS)
def test_written_back_it_is_the_same_definition(test: str) -> None:
    chart = load_chart(FOLDER / f"{test}.scxml")
    again = Chart.from_scxml(write_scxml(chart.definition).encode(), folder=FOLDER)
    assert again.digest == chart.digest


@pytest.mark.parametrize("test", IDS)
def test_its_json_is_the_same_definition(test: str, tmp_path: Path) -> None:
    chart = load_chart(FOLDER / f"{test}.scxml")
    (tmp_path / "chart.json").write_bytes(chart.to_json())
    assert load_chart(tmp_path / "chart.json").digest == chart.digest
    assert Chart.from_json(chart.to_json()).digest == chart.digest
