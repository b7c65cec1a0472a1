"""The example, run as it is run by hand; which way it goes, played through; and its steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from statewright.engine.workflows import StepCall
from statewright.examples.command import store_in
from statewright.examples.conditional_analysis.main import LIMIT, WORKFLOW, main
from statewright.examples.conditional_analysis.steps import analyse, take_sample
from statewright.statecharts.simulate import Simulation, parse_token
from tests.test_readme import ROOT, commands, run

FOLDER = ROOT / "examples" / "conditional_analysis"
CALL = StepCall("e", "conditional_analysis", "step", effect_id="e-1-0")


async def test_the_number_of_rows_decides(tmp_path: Path) -> None:
    found = await main(tmp_path, store_in(tmp_path))
    said = {name: {step: result[0] for step, result in one["steps"].items()} for name, one in found.items()}
    both = {"count": "completed", "report": "completed"}
    assert said["small"] == both | {
        "whole": "completed",
        "sample": "skipped",
        "estimate": "skipped",
        "warning": "skipped",
    }
    assert said["large"] == both | {
        "whole": "skipped",
        "sample": "completed",
        "estimate": "completed",
        "warning": "completed",
    }
    reports = {path.name: path.read_text() for path in (tmp_path / "reports").iterdir()}
    assert set(reports) == {"small.csv.json", "large.csv.json", "large.csv.warning.txt"}
    large = json.loads(reports["large.csv.json"])
    assert (large["rows"], large["estimated"], large["figures"]["rows"]) == (5_000, True, 500)
    assert abs(large["figures"]["mean"] - 100) < 5
    assert await main(tmp_path, store_in(tmp_path)) == found, "started again, it finds what it has done"


@pytest.mark.parametrize(("rows", "way"), [(0, "whole"), (LIMIT, "whole"), (LIMIT + 1, "sample")])
def test_where_the_branch_parts(rows: int, way: str) -> None:
    simulation = Simulation(WORKFLOW.chart(), {"input": {"limit": LIMIT, "tolerance": 1.0}})
    simulation.begin()
    line = simulation.feed(parse_token(f"done.effect.count={rows}"))
    assert [effect.name for effect in line.effects] == [way]


def test_the_readmes_commands_work(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    for command in commands((FOLDER / "README.md").read_text("utf-8")):
        assert run(command, tmp_path / "example") != "", command


def test_steps_may_run_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("value\n" + "".join(f"{n}\n" for n in range(25)))
    for _ in range(2):
        name = take_sample(tmp_path, "a.csv", 10, CALL)
        assert analyse(tmp_path, name, CALL) == {"rows": 3, "mean": 10.0, "median": 10.0, "deviation": 8.165}
