"""The example, run as it is run by hand, and its steps over what an earlier attempt has left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import PermanentError
from statewright.engine.workflows import StepCall
from statewright.examples.command import store_in
from statewright.examples.document_processing.main import main
from statewright.examples.document_processing.steps import load, remove_stored, return_to_inbox, store, validate
from tests.test_readme import ROOT, commands, run

FOLDER = ROOT / "examples" / "document_processing"
CALL = StepCall("e", "document_processing", "step", effect_id="e-1-0")
DOCUMENT = "title: T\nlanguage: en\n# A\naaaa\n# B\nbbbb\n"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {step: result[0] for step, result in found["steps"].items()}


async def test_documents_are_stored_or_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = await main(tmp_path, store_in(tmp_path))
    assert {name: one["status"] for name, one in found.items()} == {
        "lakes": "completed",
        "letter": "completed",
        "atlas": "failed",
    }
    lakes, letter, atlas = (statuses(one) for one in found.values())
    assert set(lakes.values()) == {"completed"}
    assert {step: said for step, said in letter.items() if said != "completed"} == {
        "spelling": "failed",
        "images": "skipped",
    }
    assert [(step, said) for step, said in atlas.items() if step.startswith("undo_") or step == "store"] == [
        ("store", "failed"),
        ("undo_store", "compensated"),
        ("undo_report", "compensated"),
        ("undo_load", "compensated"),
    ]
    assert "no room for section 4 of 9" in found["atlas"]["error"]
    assert names(tmp_path / "archive") == [
        f"{name}/{n}.txt" for name in ("lakes.md", "letter.md") for n in ("01", "02")
    ]
    assert names(tmp_path / "reports") == ["lakes.md.json", "letter.md.json"]
    assert names(tmp_path / "inbox") == ["atlas.md"]
    assert "undo_store       compensated" in capsys.readouterr().out
    assert await main(tmp_path, store_in(tmp_path)) == found, "started again, it finds what it has done"


def test_the_readmes_commands_work(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    for command in commands((FOLDER / "README.md").read_text("utf-8")):
        assert run(command, tmp_path / "example") != "", command


def test_steps_may_run_twice(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.md").write_text(DOCUMENT)
    for _ in range(2):
        assert load(tmp_path, "a.md", CALL) == "a.md"
    for room in (10, 100, 100):  # The first stops half way.
        if room == 10:
            with pytest.raises(PermanentError, match="no room for section 2 of 2: 8 of 10 bytes"):
                store(tmp_path, "a.md", ["A", "B"], room, CALL)
        else:
            assert store(tmp_path, "a.md", ["A", "B"], room, CALL) == 16
    assert names(tmp_path / "archive") == ["a.md/01.txt", "a.md/02.txt"]
    for _ in range(2):
        remove_stored(tmp_path, "a.md", CALL)
        return_to_inbox(tmp_path, "a.md", CALL)
    assert names(tmp_path) == ["inbox/a.md", "journal.txt"]


def test_what_is_no_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "a.md").write_text("title: T\n")
    with pytest.raises(PermanentError, match="does not say its language"):
        validate(tmp_path, "a.md", CALL)
    with pytest.raises(PermanentError, match=r"no document 'b\.md' in the inbox"):
        load(tmp_path, "b.md", CALL)
