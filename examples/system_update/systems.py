"""The systems as they are before the updates, and the releases that they are updated to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from statewright.examples.files import write
from statewright.examples.system_update.steps import CURRENT, DATABASE

PAYMENTS = {"shop": [1200, 4500, 300, 9900], "billing": [12_345, 67, 8_901]}
"""Of each system, in cents. Those of the shop happen to be whole units of money."""
ROUNDED, EXACT = 2, 3

_AMOUNT = ["ALTER TABLE payments RENAME TO payments_before", "CREATE TABLE payments (id INTEGER PRIMARY KEY, amount)"]
RELEASES = {
    # It counts in whole units, and loses what is less than one.
    ROUNDED: {
        "migration": [
            *_AMOUNT,
            "INSERT INTO payments SELECT id, cents / 100 FROM payments_before",
            "DROP TABLE payments_before",
        ],
        "cents": "SELECT sum(amount) * 100 FROM payments",
        "files": {"app.txt": "Shows payments in whole units.\n", "settings.json": '{"decimals": 0}\n'},
    },
    # It adds a column and leaves the others alone.
    EXACT: {
        "migration": ["ALTER TABLE payments ADD COLUMN currency TEXT NOT NULL DEFAULT 'CHF'"],
        "cents": "SELECT sum(cents) FROM payments",
        "files": {"app.txt": "Shows payments with their currency.\n", "settings.json": '{"decimals": 2}\n'},
    },
}


def set_up(folder: Path) -> None:
    """Write the systems, all of them or none, unless they are there, and the releases."""
    for release, manifest in RELEASES.items():
        write(folder / "releases" / f"{release}.json", json.dumps(manifest, indent=2))
    if (folder / "systems").exists():
        return
    beside = folder / ".systems.new"
    shutil.rmtree(beside, ignore_errors=True)
    for system, payments in PAYMENTS.items():
        write(beside / system / CURRENT, "1\n")
        write(beside / system / "release-1" / "app.txt", "Shows payments in cents.\n")
        with closing(sqlite3.connect(beside / system / DATABASE)) as database, database:
            database.execute("CREATE TABLE payments (id INTEGER PRIMARY KEY, cents INTEGER)")
            database.executemany("INSERT INTO payments (cents) VALUES (?)", [(cents,) for cents in payments])
            database.execute("PRAGMA user_version = 1")
    write(folder / "before.json", json.dumps(contents(beside)))
    os.replace(beside, folder / "systems")


def contents(folder: Path) -> dict[str, str]:
    """Of each file in a folder the SHA-256 of its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def is_as_before(folder: Path) -> bool:
    """Whether the systems were, after the first update, byte for byte what they were before it."""
    after = folder / "after.json"
    if not after.exists():  # Asked for the first time, before there is another update.
        write(after, json.dumps(contents(folder / "systems")))
    return after.read_bytes() == (folder / "before.json").read_bytes()
