"""The example, run: as a program, and with steps that break off half way."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from statewright.engine import PermanentError
from statewright.engine.workflows import Orchestrator, StepCall
from statewright.examples.system_update.main import WORKFLOW, main
from statewright.examples.system_update.steps import Updater
from statewright.examples.system_update.systems import EXACT, PAYMENTS, ROUNDED, contents, is_as_before, set_up
from tests.test_readme import ROOT

FOLDER = ROOT / "examples" / "system_update"
SHOP, BILLING = PAYMENTS


async def test_a_release_that_loses_money_is_undone_and_a_sound_one_is_made_final(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    found = await main(tmp_path, store)
    assert found[f"release {ROUNDED}"] == {
        "outcome": "transaction 'release-2' was rolled back: execution 'release-2-billing' is failed: step 'verify' "
        "failed: PermanentError: billing had payments of 21313 cents, release 2 finds 21200",
        "statuses": {"release-2-shop": "cancelled", "release-2-billing": "failed"},
        "undone": [
            f"release-2-{system} undo_{step}" for system in (BILLING, SHOP) for step in ("deploy", "migrate", "backup")
        ],
        "as_before": True,
    }
    assert found[f"release {EXACT}"] == {
        "outcome": "committed",
        "statuses": {"release-3-shop": "completed", "release-3-billing": "completed"},
    }
    for system, payments in PAYMENTS.items():
        with closing(sqlite3.connect(tmp_path / "systems" / system / "data.db")) as database:
            rows = database.execute("SELECT cents, currency FROM payments ORDER BY id").fetchall()
        assert rows == [(cents, "CHF") for cents in payments]
        assert (tmp_path / "systems" / system / "current").read_text() == "3\n"
    assert await main(tmp_path, store) == found, "run again it finds what was done"


async def test_a_deployment_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    set_up(tmp_path)

    class Clumsy(Updater):
        def deploy(self, system: str, release: int, call: StepCall) -> list[str]:
            super().deploy(system, release, call)
            raise PermanentError("the disk is full")

    functions = Clumsy(tmp_path).functions()
    store = f"sqlite:///{tmp_path}/store.db"
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=functions) as orchestrator:
        given = {"system": SHOP, "release": EXACT}
        done = await orchestrator.execute_and_wait("system_update", given, id="alone", timeout=60)
        assert (done.status, done.error) == ("failed", "step 'deploy' failed: PermanentError: the disk is full")
        results = await orchestrator.step_results("alone")
        undone = {step: one.status for step, one in results.items() if step.startswith("undo_")}
        assert undone == dict.fromkeys(("undo_backup", "undo_migrate", "undo_deploy"), "compensated")
    assert is_as_before(tmp_path)
    assert contents(tmp_path / "backups") == {}


@pytest.mark.integration
def test_the_program_shows_what_was_undone(tmp_path: Path) -> None:
    program = [sys.executable, str(FOLDER / "main.py"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = (FOLDER / "README.md").read_text().partition("$ python main.py\n")[2].partition("```")[0]
    assert done.stdout.startswith(shown)
