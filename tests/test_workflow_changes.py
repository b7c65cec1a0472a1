"""What docs/workflow-changes.md says is so: its program prints what is shown."""

from __future__ import annotations

from pathlib import Path

from statewright.engine.workflows.standing import TRIES_MAX
from statewright.engine.workflows.transactions import NAME
from tests.test_readme import ROOT, blocks, run_python

TEXT = (ROOT / "docs" / "workflow-changes.md").read_text(encoding="utf-8")


def test_the_program_prints_what_is_shown(tmp_path: Path) -> None:
    assert run_python(blocks(TEXT, "python")[0], tmp_path) == blocks(TEXT, "")[0]


def test_names_and_bounds_are_as_told() -> None:
    assert f"`{NAME}`" in TEXT
    assert f"that is tried {TRIES_MAX} times" in TEXT
