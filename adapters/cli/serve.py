"""Commands that run the engine: serve, demo."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from statewright.adapters.cli.options import DEFAULTS, SERVE_DEFAULTS, Flag, Options, Repeated, ServeOptions

if TYPE_CHECKING:
    from statewright.adapters.cli.settings import Settings, Shown


def serve(
    *,
    chart: Annotated[list[str] | None, Repeated] = None,
    handlers: Annotated[list[str] | None, Repeated] = None,
    plugin: Annotated[list[str] | None, Repeated] = None,
    verbose: Annotated[bool, Flag] = False,
    print_settings: Annotated[bool, Flag] = False,
    serving: ServeOptions = SERVE_DEFAULTS,
    options: Options = DEFAULTS,
) -> None:
    """Run the engine until SIGTERM or SIGINT: NATS doors, timers, effects, projections.

    Definitions that the store holds are served, too, without being named.

    Parameters
    ----------
    chart
        A chart to serve; may be given several times (STATEWRIGHT_CHARTS, with commas between).
    handlers
        module:attribute or file.py:attribute of a mapping from effects to functions, or of a function of the engine
        (STATEWRIGHT_HANDLERS, with commas between).
    plugin
        An installed plugin that performs steps of workflows, as `statewright plugins` names it; may be given several
        times (STATEWRIGHT_PLUGINS, with commas between). Without any none is loaded.
    verbose
        The same as --log-level info.
    print_settings
        Check the settings, show them with their origin, and end.
    """
    import logging

    from statewright.adapters.cli import wiring
    from statewright.adapters.cli.logs import configure
    from statewright.adapters.cli.settings import read_settings, unknown_variables

    level = serving.log_level or ("info" if verbose else None)
    given = {**vars(serving), "log_level": level, "charts": chart, "handlers": handlers, "plugins": plugin}
    settings, lines = read_settings(options, given)
    if print_settings:
        _print_settings(lines, as_json=options.json)
        for complaint in unknown_variables():
            print(f"statewright: {complaint}", file=sys.stderr)
        return
    configure(settings.log_level, settings.log_format, sys.stderr, settings.worker)
    for complaint in unknown_variables():
        logging.getLogger("statewright.serve").warning(complaint)
    wiring.run(_serve(settings))


def _print_settings(lines: list[Shown], *, as_json: bool) -> None:
    from rich.table import Table

    from statewright.adapters.cli import output

    if as_json:
        for line in lines:
            output.print_json(line._asdict())
        return
    table = Table("setting", "value", "from", "flag", "variable")
    for line in lines:
        value = ", ".join(line.value) if isinstance(line.value, list) else "" if line.value is None else str(line.value)
        table.add_row(line.setting, output.clean(value), line.origin, line.flag, line.variable)
    output.console().print(table)


async def _serve(settings: Settings) -> None:
    """Serve until a signal asks to stop."""
    import logging

    from statewright.adapters.cli import output, wiring
    from statewright.adapters.cli.stopping import Stopping

    stopping = Stopping(settings.shutdown_timeout)
    async with wiring.serving(settings) as served:
        if settings.options.json:
            output.print_json(served)
        else:
            names = ", ".join(served.definitions) or "no definitions yet"
            print(f"serving {names} from {served.store} on {served.nats} (pid {served.pid})")
            if served.unhandled:
                print(f"no handler for {', '.join(served.unhandled)}: such effects wait in the store", file=sys.stderr)
        sys.stdout.flush()  # Whoever waits for this line gets it now, through a pipe, too.
        logging.getLogger("statewright.serve").info("serving %s on %s", served.store, served.nats)
        await stopping.asked()
    stopping.closed()


def demo(*, options: Options = DEFAULTS) -> int:
    """Run the main job, whole, and leave nothing running: a document approval driven by published events, its engine
    killed half way and started again; prints the timeline and the metrics."""
    from statewright.adapters.cli.demo import run_demo

    return int(run_demo(options) or 0)
