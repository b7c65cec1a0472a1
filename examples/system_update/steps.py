"""The steps of `workflow.yaml`, and what undoes them: on a real database and real files.

A system is a folder: `data.db`, its database; a folder for each release's files; and `current`, which says which of
them is in use. A backup is named for its execution.

Each step may be performed again after a crash, and what undoes it after it was done in part, or twice. So files are
written whole or not at all, a migration is one SQL transaction that also says which release the database is at, and to
undo is to bring back what was, never to compute it backwards.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from statewright.engine import PermanentError
from statewright.engine.workflows import StepCall
from statewright.examples.files import note, write

DATABASE = "data.db"
CURRENT = "current"
CENTS = "SELECT sum(cents) FROM payments"


class Updater:
    """What the steps have in common: the folder with the systems, the releases and the backups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The steps, by the names that the workflow has for them."""
        done = (self.backup, self.migrate, self.deploy, self.verify)
        undone = (self.discard_backup, self.restore, self.withdraw)
        return {function.__name__: function for function in (*done, *undone)}

    def backup(self, system: str, call: StepCall) -> dict[str, Any]:
        """Keep the database, byte for byte, and tell which release it belongs to."""
        self._begin(call)
        content = (self._system(system) / DATABASE).read_bytes()
        write(self._backup(call), content)
        return {"bytes": len(content), "release": int((self._system(system) / CURRENT).read_text())}

    def discard_backup(self, call: StepCall) -> None:
        self._begin(call)
        shutil.rmtree(self._backup(call).parent, ignore_errors=True)

    def migrate(self, system: str, release: int, call: StepCall) -> None:
        """All statements of the release, or none; nothing if the database is at that release."""
        self._begin(call)
        statements = self._manifest(release)["migration"]
        with closing(sqlite3.connect(self._system(system) / DATABASE, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            if release_of(database) == release:
                return
            for statement in statements:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {release}")
            database.execute("COMMIT")

    def restore(self, system: str, call: StepCall) -> None:
        """The database as it was, with nothing left of a migration that was broken off."""
        self._begin(call)
        path = self._system(system) / DATABASE
        path.with_name(f"{DATABASE}-journal").unlink(missing_ok=True)
        write(path, self._backup(call).read_bytes())

    def deploy(self, system: str, release: int, call: StepCall) -> list[str]:
        """Put the release's files beside those of the others, and then into use."""
        self._begin(call)
        files = self._manifest(release)["files"]
        for name, content in files.items():
            write(self._system(system) / f"release-{release}" / name, content)
        write(self._system(system) / CURRENT, f"{release}\n")
        return sorted(files)

    def withdraw(self, system: str, release: int, before: int, call: StepCall) -> None:
        """Take the release out of use, and then its files away."""
        self._begin(call)
        write(self._system(system) / CURRENT, f"{before}\n")
        shutil.rmtree(self._system(system) / f"release-{release}", ignore_errors=True)

    def verify(self, system: str, release: int, call: StepCall) -> dict[str, Any]:
        """Files and database are of the same release, and no money was lost on the way."""
        self._begin(call)
        with closing(sqlite3.connect(self._backup(call))) as before:
            (expected,) = before.execute(CENTS).fetchone()
        with closing(sqlite3.connect(self._system(system) / DATABASE)) as after:
            found, at = after.execute(self._manifest(release)["cents"]).fetchone()[0], release_of(after)
        deployed = int((self._system(system) / CURRENT).read_text())
        if (at, deployed) != (release, release):
            raise PermanentError(f"expected release {release}, the database is at {at} and the files at {deployed}")
        if found != expected:
            raise PermanentError(f"{system} had payments of {expected} cents, release {release} finds {found}")
        return {"cents": found}

    def _system(self, system: str) -> Path:
        return self._folder / "systems" / system

    def _backup(self, call: StepCall) -> Path:
        return self._folder / "backups" / call.execution_id / DATABASE

    def _manifest(self, release: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / "releases" / f"{release}.json").read_text())
        return found

    def _begin(self, call: StepCall) -> None:
        note(self._folder, call.effect_id, call.step)


def release_of(database: sqlite3.Connection) -> int:
    found: int = database.execute("PRAGMA user_version").fetchone()[0]
    return found
