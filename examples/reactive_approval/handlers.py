"""What the chart asks for. A handler may be called again after a crash, with the same `effect_id`: so each writes one
file whose name follows from the call, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from statewright.engine import EffectCall, Engine
from statewright.examples.files import note, write


def register(engine: Engine, folder: Path) -> None:
    """Register the handlers with `engine`; files go to `folder`/outbox and `folder`/booked."""

    @engine.handler("notify")
    def notify(call: EffectCall) -> None:
        """Put a message into the outbox, from which a mailer takes it."""
        note(folder, call.effect_id, call.name)
        write(folder / "outbox" / f"{call.effect_id}.json", json.dumps(call.data, sort_keys=True))

    @engine.handler("book")
    def book(call: EffectCall) -> dict[str, str]:
        note(folder, call.effect_id, call.name)
        path = write(folder / "booked" / f"{call.instance_id}.json", json.dumps(call.data, sort_keys=True))
        return {"reference": str(path.relative_to(folder))}
