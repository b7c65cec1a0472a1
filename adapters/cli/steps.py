"""The command `steps`: what the steps of a workflow's execution have come to. Reads the store, as `status` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from statewright.adapters.cli.options import DEFAULTS, Options

if TYPE_CHECKING:
    from rich.table import Table

    from statewright.engine.workflows import StepResult

_STYLES = {
    "running": "green",
    "retrying": "yellow",
    "completed": "cyan",
    "failed": "red",
    "compensation_failed": "red",
    "cancelled": "magenta",
    "compensated": "magenta",
}


async def steps(execution: str, /, *, options: Options = DEFAULTS) -> None:
    """Show what the steps of a workflow's execution have come to, in the workflow's order.

    Parameters
    ----------
    execution
        The execution's id.
    """
    from statewright.adapters.cli import output, wiring
    from statewright.engine.workflows import Orchestrator

    async with wiring.reading(options) as engine, Orchestrator(engine) as orchestrator:
        wiring.say_what_is_withheld(engine)
        readable = engine.log.ring is not None or not engine.log.is_encrypted
        results = await orchestrator.step_results(execution, with_data=readable)
        if options.json:
            for result in results.values():
                output.print_json(result)
            return
        row = await engine.status(execution)
        counts = Counter(result.status for result in results.values())
        console = output.console()
        console.print(
            f"{output.clean(row.definition)} {row.status}: {', '.join(f'{n} {status}' for status, n in counts.items())}"
        )
        console.print(_table(results.values(), now=engine.clock.now()))


def _table(results: Iterable[StepResult], *, now: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    from statewright.adapters.cli.output import clean, duration, relative, value

    table = Table("step", "status", "started", "took", "retries", "data or error", box=None, header_style="bold")
    for one in results:
        said = clean(one.error) if one.error else "" if one.data is None else value(one.data)
        table.add_row(
            clean(one.step),
            Text(one.status, style=_STYLES.get(one.status, "")),
            relative(one.started_at, now) if one.started_at is not None else "",
            duration(one.ended_at - one.started_at) if one.ended_at and one.started_at is not None else "",
            str(one.retries) if one.retries else "",
            said,
        )
    return table
