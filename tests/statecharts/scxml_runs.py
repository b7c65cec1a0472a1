"""SCXML texts as charts, for the tests."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

from statewright.statecharts import Chart
from statewright.statecharts.simulate import Simulation, parse_token


def scxml(body: str, attributes: str = "", *, folder: Path | None = None) -> Chart:
    """The chart of a document with this body; the body begins on line 2."""
    head = f'<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" {attributes}>'
    return Chart.from_scxml(f"{head}\n{dedent(body)}\n</scxml>".encode(), "test", folder=folder)


class Run:
    """A simulated chart: `after` each token, the leaves and the data."""

    def __init__(self, chart: str | Chart, attributes: str = "", context: dict[str, Any] | None = None) -> None:
        self.simulation = Simulation(scxml(chart, attributes) if isinstance(chart, str) else chart, context)
        self.line = self.simulation.begin()

    def after(self, *tokens: str) -> Run:
        for token in tokens:
            self.line = self.simulation.feed(parse_token(token))
        return self

    def to_the_end(self) -> Run:
        self.line = self.simulation.run()
        return self

    @property
    def leaves(self) -> tuple[str, ...]:
        return self.line.leaves

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.line.context)

    @property
    def raised(self) -> list[str]:
        """All internal events so far."""
        return [name for step in self.simulation.steps for name in step.raised]
