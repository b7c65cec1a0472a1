"""The command that asks a running engine whether it is well, for container probes and for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from statewright.adapters.cli.options import DEFAULTS, Flag, Options

if TYPE_CHECKING:
    from statewright.adapters.cli.wiring import Health, Readiness

WELL, NOT_WELL = 0, 1


async def health(
    *,
    live: Annotated[bool, Flag] = False,
    worker: str | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Ask the engine whether it is ready. Exit 0: it is; 1: it is not, or does not answer.

    Parameters
    ----------
    live
        Ask only whether it answers: a reason to start it anew, which being busy or without its store is not.
    worker
        Ask the engine of this name; by default any that serves the nats-server (STATEWRIGHT_WORKER).
    """
    import os

    from statewright.adapters.cli import output, wiring
    from statewright.engine.redaction import redacted
    from statewright.statecharts.errors import StatewrightError

    name = worker or os.environ.get("STATEWRIGHT_WORKER", "")
    try:
        async with wiring.connected(options) as client:
            answer = await (client.health(name) if live else client.readiness(name))
    except StatewrightError as error:
        if options.json:
            output.print_json({"status" if live else "ready": "down" if live else False, "error": redacted(str(error))})
        else:
            print(f"statewright: {redacted(str(error))}", file=sys.stderr)
        return NOT_WELL
    if options.json:
        output.print_json(answer)
    else:
        _print(answer)
    return WELL if getattr(answer, "ready", True) else NOT_WELL


def _print(answer: Health | Readiness) -> None:
    from statewright.adapters.cli import output

    checks: list[Any] = getattr(answer, "checks", [])
    state = "answers" if not checks else "is ready" if getattr(answer, "ready", False) else "is not ready"
    print(f"worker {output.clean(answer.worker)} {state}")
    for check in checks:
        print(output.clean(f"  {check.name}: {check.detail or 'ok'}"))
