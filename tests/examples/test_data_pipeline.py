"""The example, run as it is run by hand, and its steps over small tables."""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from statewright.engine.workflows import StepCall
from statewright.examples.command import store_in
from statewright.examples.data_pipeline.main import WIDTH, main
from statewright.examples.data_pipeline.steps import clean, load, save, transform, validate
from statewright.examples.data_pipeline.workflow import SCHEMA
from tests.test_readme import ROOT, blocks, commands, run

FOLDER = ROOT / "examples" / "data_pipeline"
README = (FOLDER / "README.md").read_text("utf-8")
CALL = StepCall("e", "data_pipeline", "step", effect_id="e-1-0")
ORDERS = """number,customer,country,quantity,price
1, ann ,ch,2,1.10
1, ann ,ch,2,1.10
2,bob, DE,1,much
3,BOB,DE ,3,0.35
4,eve,fr
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_the_orders_are_saved_and_the_bar_gets_to_its_end(tmp_path: Path) -> None:
    with contextlib.redirect_stdout(Terminal()) as terminal:
        found = await main(tmp_path, store_in(tmp_path))
    assert found == {"status": "completed", "saved": {"orders": 4900, "total_in_cents": 87023400, "rejected": 114}}
    with closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
        assert connection.execute("SELECT count(*), sum(total) FROM orders").fetchone() == (4900, 87023400)
    *_, last = terminal.getvalue().split("\r")
    assert last.startswith(f"[{'#' * WIDTH}] 100% completed")
    assert await main(tmp_path, store_in(tmp_path)) == found, "started again, it finds what it has done"


def test_the_readmes_commands_work_and_print_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    printed = [run(command, tmp_path / "example") for command in commands(README)]
    assert printed[1].startswith(blocks(README, "")[0])


def test_each_step_passes_on_what_it_should(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(ORDERS)
    loaded = load(tmp_path, "orders.csv", CALL)
    valid = validate(loaded, SCHEMA, CALL)
    assert (loaded.rows, valid.rows, valid.rejected) == (5, 3, 2)
    tidy = clean(valid, CALL)
    assert [(row["customer"], row["country"]) for row in tidy.read()] == [("Ann", "CH"), ("Bob", "DE")]
    totals = transform(tidy, CALL)
    assert [row["total"] for row in totals.read()] == [220, 105]
    for _ in range(2):  # A step may be performed twice.
        assert save(totals, "orders.db", CALL) == {"orders": 2, "total_in_cents": 325, "rejected": 2}
