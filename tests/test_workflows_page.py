"""What docs/workflows.md says of how workflows are written is so: its example is one, in both forms, and its tables
hold every field."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statewright.statecharts import load_chart
from statewright.statecharts.check import check
from statewright.statecharts.simulate import Simulation, parse_token
from statewright.statecharts.workflows import load_workflow, model
from statewright.statecharts.workflows.schema_texts import FIELDS
from tests.test_readme import ROOT, blocks

TEXT = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "publish.yaml"
    path.write_text(blocks(TEXT, "yaml")[0], encoding="utf-8")
    return path


def test_the_example_is_the_same_in_python(page: Path) -> None:
    names: dict[str, Any] = {}
    exec(blocks(TEXT, "python")[0], names)
    assert names["publish"].chart().digest == load_workflow(page).chart().digest
    assert set(names["publish"].functions) == {"load_document", "remove_document", "count_words"}


def test_check_finds_nothing(page: Path) -> None:
    assert check(load_chart(page)) == []


def test_it_can_be_played_through(page: Path) -> None:
    command = next(block for block in blocks(TEXT, "console") if "simulate" in block)
    given, *tokens = shlex.split(command.removeprefix("$ "))[4:]
    simulation = Simulation(load_chart(page), json.loads(given))
    simulation.begin()
    lines = [simulation.feed(parse_token(token)) for token in tokens]
    assert [line.status for line in lines] == ["active", "active", "completed"]
    assert lines[-1].context["skipped"] == 1


def test_the_tables_hold_every_field_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
    expected = []
    for name, texts in FIELDS.items():
        fields = {field.name: field for field in msgspec.structs.fields(getattr(model, name))}
        for key, text in texts.items():
            default = fields[key].default
            if isinstance(default, model.OnError):
                shown = "abort"
            elif default in (None, "", (), msgspec.NODEFAULT):
                shown = ""
            elif isinstance(default, float):
                shown = f"`{default:g}`"
            else:
                shown = f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"
            expected.append((key, text, shown))
    assert sorted(rows) == sorted(expected)
