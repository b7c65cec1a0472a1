"""What docs/timers-and-schedules.md says is so: its program prints what is shown, its commands work."""

from __future__ import annotations

import re
from pathlib import Path

from statewright.engine.schedules import CATCH_UP_MAX, HOLD_NS
from tests.test_readme import ROOT, blocks, commands, run, run_python

TEXT = (ROOT / "docs" / "timers-and-schedules.md").read_text(encoding="utf-8")


def test_the_program_prints_what_is_shown(tmp_path: Path) -> None:
    assert run_python(blocks(TEXT, "python")[0], tmp_path) == blocks(TEXT, "")[0]


def test_the_commands_work(tmp_path: Path) -> None:
    (tmp_path / "report.py").write_text(blocks(TEXT, "python")[0].partition("async def main")[0])
    for command in commands(TEXT):
        assert "sales" in run(command, tmp_path), command


def test_the_bounds_are_as_told() -> None:
    assert f"at most the newest {CATCH_UP_MAX}" in TEXT
    assert f"every {HOLD_NS // 10**9} seconds" in TEXT
    assert re.findall(r"`statewright\.schedule\.", TEXT)
