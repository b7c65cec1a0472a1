"""What docs/coming-from-xstate.md says is so: its program prints what is shown, its machine is a chart everywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from statewright.statecharts import load_chart
from tests.test_readme import ROOT, blocks, commands, run, run_python

PAGE = ROOT / "docs" / "coming-from-xstate.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "purchase.json").write_text(blocks(TEXT, "json")[0])
    (tmp_path / "purchase.py").write_text(blocks(TEXT, "python")[0])
    return tmp_path


def test_the_program_prints_what_is_shown(folder: Path) -> None:
    assert run_python(blocks(TEXT, "python")[0], folder) == blocks(TEXT, "")[0]


def test_the_machine_is_a_chart_to_every_command(folder: Path) -> None:
    for command in commands(TEXT):
        assert run(command, folder) != "", command


def test_the_ids_are_as_told(tmp_path: Path) -> None:
    config = json.loads(blocks(TEXT, "json")[0])
    del config["states"]["Draft"]["on"]["submit"]["guard"]
    finance = config["states"]["In review"]["states"]["finance"]["states"]["waiting"]
    del finance["after"], finance["on"]["finance.approve"]["guard"]
    (tmp_path / "purchase.json").write_text(json.dumps(config))
    chart = load_chart(tmp_path / "purchase.json")
    assert "In_review.legal.waiting" in chart.machine.by_id
    assert "`In_review.legal.waiting`" in TEXT


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
