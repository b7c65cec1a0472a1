"""The W3C's SCXML 1.0 implementation report plan tests, transformed: CEL instead of ECMAScript.

They are third-party and not part of this repository. They are looked for in `../shared/statecharts/w3c-irp` beside it,
or where the environment variable `STATEWRIGHT_W3C_IRP` says, and are run in place; a test passes when its run ends in
the state `pass`. What these tests show is "passes N of 163 W3C IRP tests, transformed", no more.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from statewright.statecharts import Chart, load_chart
from statewright.statecharts.scxml import write_scxml
from statewright.statecharts.simulate import Simulation

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("STATEWRIGHT_W3C_IRP", ROOT.parent / "shared" / "statecharts" / "w3c-irp"))
ABSENT = not (FOLDER / "manifest.json").is_file()
TESTS: list[dict[str, Any]] = [] if ABSENT else json.loads((FOLDER / "manifest.json").read_text())

pytestmark = pytest.mark.skipif(ABSENT, reason=f"the transformed W3C IRP tests are not at {FOLDER}")


def ids() -> list[str]:
    return [test["id"] for test in TESTS] or ["absent"]


@cache
def outcome(test: str) -> tuple[str, ...]:
    return end_of(load_chart(FOLDER / f"{test}.scxml"))


def end_of(chart: Chart) -> tuple[str, ...]:
    """The leaves in which a run of the chart ends, as `simulate --run` shows them."""
    simulation = Simulation(chart)
    simulation.begin()
    return simulation.run().leaves


@pytest.mark.parametrize("test", ids())
def test_ends_in_pass(test: str) -> None:
    clause = next(f"{t['spec']}: {t['desc']}" for t in TESTS if t["id"] == test)
    assert outcome(test) == ("pass",), clause


def test_the_claim() -> None:
    passed = sum(outcome(test["id"]) == ("pass",) for test in TESTS)
    assert (
        f"passes {passed} of {len(TESTS)} W3C IRP tests, transformed" == "passes 163 of 163 W3C IRP tests, transformed"
    )


@pytest.mark.parametrize("test", ids())
def test_written_back_it_is_the_same_definition(test: str) -> None:
    chart = load_chart(FOLDER / f"{test}.scxml")
    again = Chart.from_scxml(write_scxml(chart.definition).encode(), folder=FOLDER)
    assert again.digest == chart.digest


@pytest.mark.parametrize("test", ids())
def test_its_json_is_the_same_definition(test: str, tmp_path: Path) -> None:
    chart = load_chart(FOLDER / f"{test}.scxml")
    (tmp_path / "chart.json").write_bytes(chart.to_json())
    assert load_chart(tmp_path / "chart.json").digest == chart.digest
    assert Chart.from_json(chart.to_json()).digest == chart.digest
