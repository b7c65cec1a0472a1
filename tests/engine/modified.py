"""A chart of two lanes, one derived from it for a running instance, and what puts its instances elsewhere."""

from __future__ import annotations

from typing import Any

from statewright.engine import Outcome
from statewright.engine.modification import modify
from tests.engine.charts import from_yaml
from tests.engine.worlds import World

_LANES = """
name: lanes
version: {version}
meta: {meta}
context:
  done: {{type: list(string), default: []}}
  {field}
initial: work
states:
  work:
    type: parallel
    after: {{1h: late}}
    on: {{done.state.work: finished, stop: stopped, error.effect.broken: gone}}
    states:
      left:
        initial: l1
        states:
          l1: {{entry: [{{perform: {{name: l1, cancel: on_exit}}}}], on: {{done.effect.l1: {l_next}}}}}
          {inserted}
          l2:
            entry: [{{perform: {{name: l2, cancel: on_exit}}}}]
            after: {{10m: l_end}}
            on: {{done.effect.l2: {{target: l_end, actions: [{{assign: {{done: "context.done + ['l2']"}}}}]}}}}
          l_end: {{type: final}}
      right:
        initial: r1
        states:
          r1: {{entry: [{{perform: {{name: r1, cancel: on_exit}}}}], on: {{done.effect.r1: r_end, note: {{}}}}}}
          r_end: {{type: final}}
  late: {{on: {{back: work}}}}
  gone: {{on: {{back: work}}}}
  finished: {{type: final, output: context.done}}
  stopped: {{type: final}}
"""

LANES = from_yaml(
    _LANES.format(version="'1'", meta="{}", field="old: {type: int, default: 7}", l_next="l2", inserted="")
)
DERIVED = from_yaml(
    _LANES.format(
        version="1+d3r1v3d0",
        meta="{derived_from: '1'}",
        field="fresh: {type: int, default: 9}",
        l_next="lx",
        inserted="lx: {entry: [{perform: {name: lx, cancel: on_exit}}], on: {done.effect.lx: l2}}",
    )
)
"""With a step more in the left lane, and another field in the context."""


async def moved(world: World, *targets: str, instance_id: str = "a", **rest: Any) -> Outcome:
    """Modify the instance as it is now."""
    sequence = (await world.engine.status(instance_id)).sequence
    return await modify(world.engine, instance_id, targets, **{"expected_sequence": sequence, **rest})
