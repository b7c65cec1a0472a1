"""The process dies by SIGKILL again and again while a transaction's executions run and are undone.

All is undone, in the order in which it has to be, and what was recorded as done is not done again.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from itertools import groupby
from pathlib import Path

import pytest

from statewright.engine.verify import verify_store
from statewright.engine.workflows import Orchestrator
from tests.crash.processes import EngineProcesses, until
from tests.crash.test_kill_schedules import commits
from tests.crash.transaction_process import EXECUTIONS, STEPS

SEED = 20_261_121
KILLS = 20
LIMIT_S = 240.0
PROGRAM = Path(__file__).with_name("transaction_process.py")


def is_over(path: Path) -> bool:
    connection = sqlite3.connect(path)
    row = connection.execute("SELECT status FROM instances WHERE id = 't'").fetchone()
    connection.close()
    return row is not None and row[0] == "cancelled"


@pytest.mark.integration
async def test_a_transaction_is_undone_in_order_whenever_the_process_is_killed(tmp_path: Path) -> None:
    path, log = tmp_path / "store.db", tmp_path / "log"
    url = f"sqlite:///{path}"
    lots = random.Random(SEED)
    engines = EngineProcesses(PROGRAM, url, str(log), log=tmp_path / "engine.log")
    kills = 0
    async with asyncio.timeout(LIMIT_S):
        try:
            await engines.start()
            while kills < KILLS and not is_over(path):
                await commits(path, lots.randrange(2, 7), or_else=lambda: is_over(path))
                await engines.kill()
                kills += 1
                await engines.start()
            await until(lambda: is_over(path))
            await engines.stop()
        finally:
            await engines.close()
    lines = log.read_text().splitlines()
    done = [line for line in lines if "undo" not in line]
    undone = [line for line, _ in groupby(line for line in lines if "undo" in line)]
    # What was under way at a kill is done again, at once; nothing else is.
    assert undone == [f"{execution} undo_{step}" for execution in reversed(EXECUTIONS) for step in reversed(STEPS)]
    for execution in EXECUTIONS:
        own = [line for line, _ in groupby(line for line in done if line.startswith(execution))]
        assert own == [f"{execution} {step}" for step in STEPS]
    assert lines.index(undone[0]) >= len(done)
    assert verify_store(url).differences == []
    async with Orchestrator.open(url, read_only=True) as orchestrator:
        assert (await orchestrator.transaction_status("t")).status == "rolled_back"
        assert {(await orchestrator.status(one)).status for one in EXECUTIONS} == {"cancelled"}
    assert kills > 5
