"""A chart as a picture: `render_svg`. Laid out by elkjs in a JavaScript engine, drawn as plain SVG."""

from __future__ import annotations

from statewright.adapters.svg.drawing import draw
from statewright.adapters.svg.graph import picture
from statewright.adapters.svg.layout import lay_out
from statewright.projections.visits import Visits
from statewright.statecharts.chart import Chart


def render_svg(chart: Chart, visits: Visits | None = None) -> str:
    """The SVG of a chart; with `visits`, of an instance of it: what is active is lit, what was done is counted.

    The same chart and visits give the same text. Raises `LayoutError`.
    """
    drawn = picture(chart, visits)
    return draw(drawn, lay_out(drawn.graph))
