"""What the chart asks the outside world to do, and `register`, which tells an engine who does it.

An effect is performed at least once: after a crash a handler may be called again with the same `effect_id`. So each
of these writes a file whose name follows from the call, or chooses by a rule that gives the same answer every time.

    statewright serve --chart chart.yaml --handlers handlers.py:register
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from statewright.engine import EffectCall, Engine

REVIEWERS = ("bob", "carol", "dave")
FOLDER = "DOCUMENT_APPROVAL_FOLDER"
"""The environment variable that says where messages and archived documents are kept; default: the working directory."""


def register(engine: Engine, folder: Path | None = None) -> None:
    """Register the handlers with `engine`; files go to `folder`/outbox and `folder`/archive."""
    folder = folder or Path(os.environ.get(FOLDER, "."))

    @engine.handler("assign_reviewer")
    def assign_reviewer(call: EffectCall) -> dict[str, str]:
        return {"reviewer": reviewer_of(call.instance_id, call.data["requester"])}

    @engine.handler("notify")
    def notify(call: EffectCall) -> None:
        """Put the message into the outbox, from which a mailer takes it."""
        message = {"document": call.instance_id, **call.data}
        write(folder / "outbox" / f"{call.effect_id}.json", message)

    @engine.handler("archive")
    def archive(call: EffectCall) -> dict[str, str]:
        path = folder / "archive" / f"{call.instance_id}.json"
        write(path, call.data)
        return {"reference": f"archive/{path.name}"}


def reviewer_of(document: str, requester: str) -> str:
    """One of `REVIEWERS` but never `requester`; the same for the same document."""
    candidates = [name for name in REVIEWERS if name != requester]
    return candidates[zlib.crc32(document.encode()) % len(candidates)]


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
