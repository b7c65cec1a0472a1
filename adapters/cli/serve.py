"""Commands that run the engine: serve, demo."""

from __future__ import annotations

import sys
from typing import Annotated

from statewright.adapters.cli.options import DEFAULTS, Flag, Options, Repeated


def serve(
    *,
    chart: Annotated[list[str] | None, Repeated] = None,
    handlers: Annotated[list[str] | None, Repeated] = None,
    verbose: Annotated[bool, Flag] = False,
    options: Options = DEFAULTS,
) -> None:
    """Run the engine until SIGTERM or SIGINT: NATS doors, timers, effects, projections.

    Definitions that the store holds are served, too, without being named.

    Parameters
    ----------
    chart
        A chart to serve; may be given several times.
    handlers
        module:attribute or file.py:attribute of a mapping from effects to functions, or of a function of the engine.
    verbose
        Log what the engine does, on standard error.
    """
    import logging

    from statewright.adapters.cli import wiring

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    wiring.run(_serve(options, chart or [], handlers or []))


async def _serve(options: Options, charts: list[str], handlers: list[str]) -> None:
    """Serve until a signal asks to stop; a second one doesn't wait."""
    import asyncio
    import signal

    from statewright.adapters.cli import output, wiring

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    async with wiring.serving(options, charts, handlers) as served:
        if options.json:
            output.print_json(served)
        else:
            names = ", ".join(served.definitions) or "no definitions yet"
            print(f"serving {names} from {served.store} on {served.nats} (pid {served.pid})")
            if served.unhandled:
                print(f"no handler for {', '.join(served.unhandled)}: such effects wait in the store", file=sys.stderr)
        sys.stdout.flush()  # Whoever waits for this line gets it now, through a pipe, too.
        await stop.wait()


def demo(*, options: Options = DEFAULTS) -> int:
    """Run the main job, whole, and leave nothing running: a document approval driven by published events, its engine
    killed half way and started again; prints the timeline and the metrics."""
    from statewright.adapters.cli.demo import run_demo

    return int(run_demo(options) or 0)
