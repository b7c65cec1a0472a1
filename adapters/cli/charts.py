"""Commands on a chart alone: check, simulate, render. They open no store and record nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from statewright.adapters.cli.options import DEFAULTS, Flag, Options, invalid, parse_object

REFUSED = 1


def check(chart: str, /, *, options: Options = DEFAULTS) -> int:
    """Look for faults in a chart: those for which it is refused, and what looks wrong. Exit 1 on errors.

    Parameters
    ----------
    chart
        A .yaml or .json file, or module:attribute, or file.py:attribute.
    """
    from statewright.adapters.cli import output
    from statewright.statecharts import load_chart
    from statewright.statecharts.check import check as find_faults
    from statewright.statecharts.errors import ChartError

    try:
        faults = find_faults(load_chart(chart))
    except ChartError as error:
        faults = list(error.faults)
    errors = sum(fault.severity == "error" for fault in faults)
    if options.json:
        for fault in faults:
            output.print_json(fault_json(fault))
        return REFUSED if errors else 0
    console = output.console()
    for fault in faults:
        console.print(fault.severity, style="red" if fault.severity == "error" else "yellow", end=" ")
        console.print(output.clean(str(fault)), soft_wrap=True)
    warnings = len(faults) - errors
    console.print(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return REFUSED if errors else 0


def simulate(
    chart: str,
    /,
    *tokens: str,
    run: Annotated[bool, Flag] = False,
    context: str | None = None,
    options: Options = DEFAULTS,
) -> None:
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
    from statewright.adapters.cli import output, people
    from statewright.adapters.cli.loading import load
    from statewright.statecharts.simulate import Simulation

    given = parse_object("--context", context)
    loaded = load(chart)
    outer = people.parents(loaded.to_json().decode())
    console = None if options.json else output.console()
    simulation = Simulation(loaded, given or {})
    lines = chain([simulation.started], map(simulation.feed, tokens), (simulation.run() for _ in range(run)))
    for line in lines:
        if console is None:
            output.print_json(line)
        else:
            console.print(people.simulated(line, outer))


def render(
    chart: str,
    /,
    *,
    format: Literal["mermaid", "json", "svg", "scxml"] = "mermaid",  # noqa: A002 (the contract's name)
    options: Options = DEFAULTS,
) -> None:
    """Print a chart as a diagram or in another form.

    Parameters
    ----------
    chart
        A .yaml or .json file, or module:attribute, or file.py:attribute.
    format
        mermaid: a diagram for Markdown. json: the definition as it is stored.
    """
    from statewright.adapters.cli.loading import load

    if format in ("svg", "scxml"):
        raise invalid(f"format '{format}' is not available yet; expected mermaid or json")
    loaded = load(chart)
    if format == "json":
        print(loaded.to_json().decode())
        return
    from statewright.statecharts.mermaid import mermaid

    print(mermaid(loaded))
