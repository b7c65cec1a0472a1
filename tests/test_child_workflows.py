"""What docs/child-workflows.md says is so."""

from __future__ import annotations

from pathlib import Path

from statewright.statecharts import load_chart
from statewright.statecharts.check import check
from tests.test_readme import ROOT, blocks, run_python

TEXT = (ROOT / "docs" / "child-workflows.md").read_text(encoding="utf-8")


def test_the_program_prints_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "order.yaml").write_text(blocks(TEXT, "yaml")[0])
    assert run_python(blocks(TEXT, "python")[0], tmp_path) == blocks(TEXT, "")[0]
    assert check(load_chart(tmp_path / "order.yaml")) == []
