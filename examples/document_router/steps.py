"""The steps of `workflow.yaml`, on the files of one folder. The step `route` is a router.

A step may be performed again after a crash. So what is written is one file with a name of its own, whole or not at
all; a booking has the step's effect id as its key, and is there once; and a document that has been moved stays there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from statewright.engine import PermanentError
from statewright.engine.routing import load_router
from statewright.engine.workflows import StepCall
from statewright.examples.files import note, write

INBOX = "inbox"
LEDGER = "ledger.db"
ROUTER = load_router(Path(__file__).with_name("router.yaml"))


class Office:
    """What the steps have in common: the folder with the inbox, the ledger, and a folder for each way to go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with closing(sqlite3.connect(folder / LEDGER)) as ledger, ledger:
            ledger.execute(
                "CREATE TABLE IF NOT EXISTS bookings (effect_id PRIMARY KEY, document TEXT, sender TEXT, amount INT)"
            )

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The steps, by the names that the workflow has for them."""
        own = (self.read, self.book, self.approve, self.answer, self.desk, self.file)
        return {"route": ROUTER, **{function.__name__: function for function in own}}

    def read(self, name: str, call: StepCall) -> dict[str, Any]:
        """What the scanner has put down: lines `name: value`, an empty line, the text."""
        self._begin(call)
        path = self._folder / INBOX / name
        if not path.is_file():
            raise PermanentError(f"there is no document {name!r} in the inbox")
        head, _, text = path.read_text(encoding="utf-8").partition("\n\n")
        fields = dict(line.split(": ", 1) for line in head.splitlines())
        return {
            "kind": fields.get("kind", "unknown"),
            "sender": fields.get("sender", ""),
            "amount": int(fields.get("amount", 0)),
            "legible": float(fields.get("legible", 0)),
            "text": text.strip().lower(),
        }

    def book(self, name: str, booking: dict[str, Any], call: StepCall) -> None:
        """Into the ledger, once: the effect id is the same whenever this is performed again."""
        self._begin(call)
        with closing(sqlite3.connect(self._folder / LEDGER)) as ledger, ledger:
            row = (call.effect_id, name, booking["sender"], booking["amount"])
            ledger.execute("INSERT OR IGNORE INTO bookings VALUES (?, ?, ?, ?)", row)

    def approve(self, name: str, amount: int, call: StepCall) -> None:
        """Ask for an approval."""
        self._begin(call)
        write(self._folder / "approvals" / f"{name}.txt", f"{name} asks for {amount}: two signatures are needed\n")

    def answer(self, name: str, to: str, call: StepCall) -> None:
        """Write a letter."""
        self._begin(call)
        write(self._folder / "letters" / f"{name}.txt", f"Dear {to},\nwe are sorry, and look into it at once.\n")

    def desk(self, name: str, reason: str, call: StepCall) -> None:
        """Put it on somebody's desk, with the reason why no rule knows better."""
        self._begin(call)
        write(self._folder / "desk" / f"{name}.txt", f"Please look at {name}: {reason}\n")

    def file(self, name: str, target: str, call: StepCall) -> str:
        """Out of the inbox, to where documents that went the same way are."""
        self._begin(call)
        place = self._folder / "filed" / target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            (self._folder / INBOX / name).rename(place)
        return str(place.relative_to(self._folder))

    def _begin(self, call: StepCall) -> None:
        note(self._folder, call.effect_id, call.step)
