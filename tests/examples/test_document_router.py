"""The example, run: as a program, and the rules by themselves."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from statewright.engine.workflows import Orchestrator
from statewright.examples.document_router.main import MAIL, WORKFLOW, main
from statewright.examples.document_router.steps import LEDGER, ROUTER, Office
from tests.test_readme import ROOT

FOLDER = ROOT / "examples" / "document_router"
INVOICE = {"kind": "invoice", "sender": "Oak", "amount": 900, "legible": 1.0, "text": "a bench"}


@pytest.mark.parametrize(
    ("document", "target", "rule"),
    [
        (INVOICE, "book", "invoice"),
        (INVOICE | {"amount": 10_000}, "book", "invoice"),
        (INVOICE | {"amount": 10_001}, "approve", "large_invoice"),
        (INVOICE | {"amount": 10_001, "text": "i complain"}, "answer", "complaint"),
        (INVOICE | {"legible": 0.6}, "book", "invoice"),
        (INVOICE | {"legible": 0.59}, "desk", ""),
        (INVOICE | {"amount": 0}, "desk", ""),
        (INVOICE | {"kind": "unknown"}, "desk", ""),
    ],
)
def test_the_rules_decide(document: dict[str, Any], target: str, rule: str) -> None:
    decision = ROUTER.decide(document)
    assert (decision.target, decision.rule) == (target, rule)


def filed(folder: Path) -> dict[str, str]:
    """By document, where it was filed; nothing is left in the inbox."""
    assert not list((folder / "inbox").iterdir())
    return {path.name: path.parent.name for path in folder.glob("filed/*/*")}


async def test_each_document_goes_where_the_rules_say_and_the_decision_is_recorded(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    decisions = await main(tmp_path, store)
    assert decisions == await main(tmp_path, store), "run again it finds what was decided"
    assert filed(tmp_path) == {
        "bench": "book",
        "complaint": "answer",
        "crane": "approve",
        "postcard": "desk",
        "smudged": "desk",
    }
    with closing(sqlite3.connect(tmp_path / LEDGER)) as ledger:
        assert ledger.execute("SELECT document, sender, amount FROM bookings").fetchall() == [
            ("bench", "Oak & Sons", 900)
        ]
    async with Orchestrator.open(store, read_only=True) as orchestrator:
        results = await orchestrator.step_results("smudged")
        assert {step: one.status for step, one in results.items()} == {
            "read": "completed",
            "route": "completed",
            "book": "skipped",
            "approve": "skipped",
            "answer": "skipped",
            "desk": "completed",
            "file": "completed",
        }
        assert results["route"].data == decisions["smudged"]


async def test_a_document_that_is_not_there_fails_its_execution(tmp_path: Path) -> None:
    functions = Office(tmp_path).functions()
    store = f"sqlite:///{tmp_path}/store.db"
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=functions) as orchestrator:
        done = await orchestrator.execute_and_wait("document_router", {"document": "nowhere"}, timeout=60)
    assert (done.status, done.error) == (
        "failed",
        "step 'read' failed: PermanentError: there is no document 'nowhere' in the inbox",
    )


@pytest.mark.integration
def test_the_program_shows_the_decisions(tmp_path: Path) -> None:
    program = [sys.executable, str(FOLDER / "main.py"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "    invoice        low_confidence 0.3 is below 0.6\n" in done.stdout
    shown = [line.split(" -> ")[0] for line in done.stdout.splitlines() if " -> " in line]
    assert shown == list(MAIL)
