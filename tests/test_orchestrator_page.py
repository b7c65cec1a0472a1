"""What docs/orchestrator.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from statewright.engine.workflows import ExecutionStatus, Orchestrator, StepResult
from statewright.engine.workflows.executions import Status
from statewright.engine.workflows.results import StepStatus
from statewright.statecharts.workflows.parameters import NAMES
from tests.test_readme import ROOT, blocks, run_python

TEXT = (ROOT / "docs" / "orchestrator.md").read_text(encoding="utf-8")


def test_the_program_prints_what_is_shown(tmp_path: Path) -> None:
    assert run_python(blocks(TEXT, "python")[0], tmp_path) == blocks(TEXT, "")[0]


def test_its_words_are_those_of_the_code() -> None:
    words = set(re.findall(r"`([a-z_]+)`", TEXT))
    assert {*get_args(Status), *get_args(StepStatus), *NAMES, *StepResult.__struct_fields__[1:]} <= words | {"steps"}
    for method in re.findall(r"`([a-z_]+)\(id", TEXT):
        assert callable(getattr(Orchestrator, method))
    assert {"progress", "current_steps", "completed_steps", "total_steps"} <= set(ExecutionStatus.__struct_fields__)
