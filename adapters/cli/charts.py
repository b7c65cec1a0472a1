"""Commands on a chart alone: check, simulate, render. They open no store and record nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from statewright.adapters.cli.options import DEFAULTS, Flag, Options, Repeated, invalid, parse_object

if TYPE_CHECKING:
    from rich.console import Console

    from statewright.statecharts.simulate import Line

REFUSED = 1
_STYLES = {"error": "red", "warning": "yellow", "info": "blue"}


def check(
    chart: str,
    /,
    *,
    handlers: Annotated[list[str] | None, Repeated] = None,
    info: Annotated[bool, Flag] = False,
    options: Options = DEFAULTS,
) -> int:
    """Look for faults in a chart: those for which it is refused, and what looks wrong. Exit 1 on errors.

    What the chart can reach is explored, with guards taken both ways.

    Parameters
    ----------
    chart
        A .yaml or .json file, or module:attribute, or file.py:attribute.
    handlers
        As for serve: an effect of the chart for which none of them is, is an error.
    info
        Also what is often on purpose: waits without a timeout, effects whose failure nothing handles.
    """
    from statewright.adapters.cli import output
    from statewright.adapters.cli.loading import load
    from statewright.statecharts.check import check as find_faults
    from statewright.statecharts.errors import ChartError

    try:
        faults = find_faults(load(chart), _handled(handlers), info=info)
    except ChartError as error:
        faults = list(error.faults)
    errors = sum(fault.severity == "error" for fault in faults)
    if options.json:
        for fault in faults:
            output.print_json(fault)
        return REFUSED if errors else 0
    console = output.console()
    for fault in faults:
        console.print(fault.severity, style=_STYLES[fault.severity], end=" ")
        console.print(output.clean(str(fault)), soft_wrap=True)
    warnings = sum(fault.severity == "warning" for fault in faults)
    console.print(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return REFUSED if errors else 0


def _handled(handlers: list[str] | None) -> frozenset[str] | None:
    if handlers is None:
        return None
    import asyncio

    from statewright.adapters.cli import wiring

    return asyncio.run(wiring.handled(handlers))


def simulate(
    chart: str,
    /,
    *tokens: str,
    run: Annotated[bool, Flag] = False,
    context: str | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Run a chart purely, on a virtual clock.

    Parameters
    ----------
    chart
        A .yaml or .json file, or module:attribute, or file.py:attribute.
    tokens
        What happens, in order: an event (name or name=JSON), or a time that passes (+50ms, +24h).
    run
        Then let the clock run through every delay that is pending.
    context
        The data it begins with: a JSON object.
    """
    from statewright.adapters.cli import output
    from statewright.adapters.cli.loading import load
    from statewright.statecharts.simulate import Simulation, SimulationError, parse_token

    parsed = [parse_token(token) for token in tokens]
    simulation = Simulation(load(chart), parse_object("--context", context))
    steps: list[Callable[[], Line]] = [
        simulation.begin,
        *(partial(simulation.feed, token) for token in parsed),
        *[simulation.run] * run,
    ]
    show: Callable[[Line, str], None] = _show_json if options.json else _Shown(output.console())
    try:
        for step in steps:
            show(step(), simulation.reason)
    except SimulationError as error:
        print(f"statewright: {output.clean(str(error))}", file=sys.stderr)
        return REFUSED
    return 0


def _show_json(line: Line, reason: str) -> None:
    from statewright.adapters.cli import output

    output.print_json(line)


class _Shown:
    """Prints lines of a simulation for people: what happened, where it led, what it changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._context: Mapping[str, Any] | None = None

    def __call__(self, line: Line, reason: str) -> None:
        from statewright.adapters.cli import output

        what = "start" if self._context is None else line.token or "run"
        before = self._context or {}
        leaves = ", ".join(map(output.clean, line.leaves))
        ended = f" ({line.status})" if line.status != "active" else ""
        self._console.print(f"{output.clean(what):<24} {leaves}{ended}", soft_wrap=True)
        details = [f"refused: {output.clean(reason)}"] if reason else []
        details += [
            f"{output.clean(key)} = {output.value(item)}"
            for key, item in line.context.items()
            if key not in before or before[key] != item
        ]
        details += [f"effect {effect.kind} {output.clean(effect.name)}" for effect in line.effects]
        for detail in details:
            self._console.print(f"{'':<26} {detail}", soft_wrap=True)
        self._context = line.context


async def render(
    chart: str | None = None,
    /,
    *,
    format: Literal["mermaid", "json", "svg", "scxml"] = "mermaid",  # noqa: A002 (the contract's name)
    instance: str | None = None,
    output: Path | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Print a chart as a diagram or in another form.

    Parameters
    ----------
    chart
        A .yaml, .json or .scxml file, or module:attribute, or file.py:attribute. With --instance it may be left out.
    format
        mermaid: a diagram for Markdown. svg: a picture. json: the definition as it is stored. scxml: an SCXML document.
    instance
        For svg: an instance in the store; where it is is lit, and how often it was where.
    output
        A file to write to instead.
    """
    if instance is not None and format != "svg":
        raise invalid(f"expected --format svg with --instance, got '{format}'")
    if chart is None and instance is None:
        raise invalid("expected CHART, or --instance ID with --format svg")
    _put(await _rendered(chart, format, instance, options), output)


def _put(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")


async def _rendered(chart: str | None, form: str, instance: str | None, options: Options) -> str:
    if form == "svg":
        from statewright.adapters.cli import wiring

        return await wiring.svg(options, chart, instance)
    from statewright.adapters.cli.loading import load

    assert chart is not None
    loaded = load(chart)
    if form == "json":
        return loaded.to_json().decode() + "\n"
    if form == "scxml":
        from statewright.statecharts.scxml import write_scxml

        return write_scxml(loaded.definition)
    from statewright.statecharts.mermaid import mermaid

    return mermaid(loaded)
