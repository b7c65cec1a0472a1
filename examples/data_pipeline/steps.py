"""The steps of the pipeline: each takes what the one before has returned, and returns where its own rows are.

Rows are in files, and only their place and number goes from step to step: what a step returns is recorded, and a
record is no place for a table. Each file is written whole or not at all, so a step that runs twice writes it twice;
`save` writes rows and sum in one transaction of SQLite and replaces what an earlier attempt has saved.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statewright.engine.workflows import StepCall
from statewright.examples.files import note, write

Row = dict[str, Any]
TYPES = {"int": int, "float": float, "text": str}


@dataclass(frozen=True)
class Table:
    """Rows in a file, a JSON object a line: what goes from step to step."""

    folder: Path
    name: str
    rows: int
    rejected: int = 0

    def read(self) -> Iterator[Row]:
        with (self.folder / self.name).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def following(self, name: str, rows: Iterable[Row], rejected: int | None = None) -> Table:
        """The next table, written beside this one."""
        lines = [json.dumps(row) + "\n" for row in rows]
        write(self.folder / name, "".join(lines))
        return Table(self.folder, name, len(lines), self.rejected if rejected is None else rejected)


def load(folder: Path, source: str, call: StepCall) -> Table:
    """The lines of the CSV file, all of them texts."""
    note(folder, call.effect_id, call.step)
    with (folder / source).open(newline="", encoding="utf-8") as file:
        return Table(folder, "", 0).following("work/1-loaded.jsonl", csv.DictReader(file))


def validate(table: Table, schema: dict[str, str], call: StepCall) -> Table:
    """The rows that fit the schema, with values of its types; those that don't fit go to a file of their own."""
    note(table.folder, call.effect_id, call.step)
    valid, rejected = [], []
    for row in table.read():
        try:
            valid.append({name: TYPES[kind](row[name]) for name, kind in schema.items()})
        except (KeyError, TypeError, ValueError) as error:
            rejected.append({"row": row, "why": str(error)})
    table.following("work/rejected.jsonl", rejected)
    return table.following("work/2-valid.jsonl", valid, len(rejected))


def clean(table: Table, call: StepCall) -> Table:
    """Names without blanks around them, countries in capitals, and no order twice."""
    note(table.folder, call.effect_id, call.step)
    rows: dict[int, Row] = {}
    for row in table.read():
        tidy = {"customer": row["customer"].strip().title(), "country": row["country"].strip().upper()}
        rows.setdefault(row["number"], {**row, **tidy})
    return table.following("work/3-clean.jsonl", rows.values())


def transform(table: Table, call: StepCall) -> Table:
    """Each order with its total, in cents, so that sums are exact."""
    note(table.folder, call.effect_id, call.step)
    rows = ({**row, "total": round(row["quantity"] * row["price"] * 100)} for row in table.read())
    return table.following("work/4-totals.jsonl", rows)


def save(table: Table, database: str, call: StepCall) -> dict[str, int]:
    """The orders in a database; what is returned is asked of it, not of the table."""
    note(table.folder, call.effect_id, call.step)
    columns = ("number", "customer", "country", "total")
    with closing(sqlite3.connect(table.folder / database)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, customer TEXT, country TEXT, total INTEGER)"
        )
        connection.executemany(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)",
            ([row[column] for column in columns] for row in table.read()),
        )
        count, total = connection.execute("SELECT count(*), sum(total) FROM orders").fetchone()
    return {"orders": count, "total_in_cents": total, "rejected": table.rejected}
