"""The example, run: as a program, and with sources that don't do as they should."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from statewright.engine.workflows import Orchestrator
from statewright.examples.data_aggregation.main import WORKFLOW
from statewright.examples.data_aggregation.sources import Sources, opened
from statewright.examples.data_aggregation.steps import Aggregation
from tests.test_readme import ROOT

FOLDER = ROOT / "examples" / "data_aggregation"
REPORT = {
    "missing": ["late"],
    "union": ["bolt", "hinge", "lock", "screw"],
    "intersection": ["bolt", "hinge", "screw"],
    "merged": {
        "bolt": {"cents": 10, "from": "http"},
        "hinge": {"cents": 299, "from": "file"},
        "lock": {"cents": 1990, "from": "http"},
        "screw": {"cents": 3, "from": "stream"},
    },
    "statistics": {
        "bolt": {"quotes": 4, "lowest": 10, "highest": 13, "median": 11.5, "mean": 11.5},
        "hinge": {"quotes": 4, "lowest": 299, "highest": 335, "median": 315.0, "mean": 316.0},
        "lock": {"quotes": 2, "lowest": 1990, "highest": 2150, "median": 2070.0, "mean": 2070.0},
        "screw": {"quotes": 4, "lowest": 3, "highest": 6, "median": 4.5, "mean": 4.5},
    },
}


@pytest.mark.integration
def test_the_program_reports_what_there_is_and_who_is_missing(tmp_path: Path) -> None:
    program = [sys.executable, str(FOLDER / "main.py"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT
    assert "data_aggregation: completed, 10 of 11 steps\nwithout an answer: late\n" in done.stdout


async def aggregated(folder: Path, sources: Sources) -> dict[str, str]:
    """The statuses of the steps."""
    functions = Aggregation(folder, sources).functions()
    store = f"sqlite:///{folder}/store.db"
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=functions) as orchestrator:
        done = await orchestrator.execute_and_wait("data_aggregation", id="quotes", timeout=60)
        assert done.status == "completed"
        return {step: one.status for step, one in (await orchestrator.step_results("quotes")).items()}


async def test_nobody_is_waited_for_in_vain(tmp_path: Path) -> None:
    with opened(tmp_path) as sources:
        gone = tmp_path / "gone.csv"
        statuses = await aggregated(tmp_path, replace(sources, file=gone, database=gone, stream=("127.0.0.1", 1)))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["missing"] == ["database", "file", "stream", "late"]
    assert report["intersection"] == ["bolt", "hinge", "lock", "screw"]
    assert {statuses[step] for step in report["missing"]} == {"cancelled"}
    assert statuses["report"] == "completed"
