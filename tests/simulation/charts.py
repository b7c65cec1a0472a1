"""The charts that simulated workloads run, and the events that they are sent."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from statewright.statecharts import Chart
from tests.engine.charts import from_yaml

_TALLY = """
name: tally
version: '1'
context: {limit: int, seen: {type: list(int), default: []}, more: {type: int, default: 0}}
initial: open
states:
  open:
    on:
      add: {guard: size(context.seen) < context.limit, actions: [{assign: {seen: "context.seen + [int(event.data)]"}}]}
      spread: {actions: [{send: {event: bit}}, {send: {event: bit, delay: 1s}}, {send: {event: bit, delay: 2s}}]}
      bit: {actions: [{assign: {more: context.more + 1}}]}
      shut: closed
  closed: {type: final}
"""
TALLY = from_yaml(_TALLY)
"""Guards, sends to itself with and without delay."""

ORDER = from_yaml("""
name: order
context: {stock: {type: int, default: 0}, paid: {type: int, default: 0}, nagged: {type: int, default: 0}}
initial: open
states:
  open:
    type: parallel
    states:
      picking:
        initial: waiting
        states:
          waiting:
            after:
              3s: {target: waiting, internal: false, guard: context.nagged < 4,
                   actions: [{assign: {nagged: context.nagged + 1}}]}
            on: {pick: {target: picked, actions: [{assign: {stock: int(event.data)}}]}}
          picked: {type: final}
      paying:
        initial: due
        states:
          due:
            after: {20s: late}
            on: {pay: {target: paid, guard: int(event.data) > 2, actions: [{assign: {paid: int(event.data)}}]}}
          late:
            entry: [{perform: {name: work, data: 0}}]
            on: {pay: paid, forgive: due}
          paid: {type: final}
    on: {done.state.open: shipping, abandon: given_up}
  shipping:
    entry: [{perform: {name: work, data: context.stock}}, {send: {event: hurry, delay: 2s, id: hurry}}]
    on:
      done.effect.work: shipped
      error.effect.work: given_up
      hurry: {actions: [{assign: {nagged: context.nagged + 1}}]}
      calm: {actions: [{cancel: hurry}]}
  shipped: {type: final}
  given_up: {on: {reopen: open}}
""")
"""Regions, timers that are set again and again, an effect whose result moves it on."""

JOBS = from_yaml("""
name: jobs
context: {done: {type: int, default: 0}, failed: {type: int, default: 0}}
initial: ready
states:
  ready:
    on:
      go: {actions: [{perform: {name: work, data: event.data}}]}
      both: {actions: [{perform: {name: work, data: 1}}, {perform: {name: slow, data: 2}}]}
      done.effect.*: {actions: [{assign: {done: context.done + 1}}]}
      error.effect.*: {actions: [{assign: {failed: context.failed + 1}}]}
      patient:
        actions: [{perform: {name: work, data: 3, retry: {attempts: 2, initial: 200ms, jitter: 0.5}, timeout: 1s}}]
      watch: watching
      fragile: brittle
      stop: stopped
  watching:
    entry: [{perform: {name: slow, data: 4, cancel: on_exit, timeout: 6s, heartbeat: 1500ms}}]
    on:
      watch: {target: watching, internal: false}
      back: ready
      go: {actions: [{perform: {name: work, data: 5, cancel: on_exit}}]}
      done.effect.*: ready
      error.effect.*: {actions: [{assign: {failed: context.failed + 1}}]}
  brittle:
    on: {go: {actions: [{perform: {name: work, data: event.data}}]}, back: ready}
  stopped: {type: final}
""")
"""Many effects at once, with terms of their own; in `watching` they end with the state, in `brittle` one that fails for
good fails the instance."""

FAMILY = from_yaml("""
name: family
context: {round: {type: int, default: 0}, heard: {type: int, default: 0}, lost: {type: int, default: 0}}
initial: asking
states:
  asking:
    invoke:
      id: helper
      autoforward: true
      data: {number: context.round}
      chart:
        name: helper
        context: {number: int, told: {type: int, default: 0}}
        initial: working
        states:
          working:
            entry:
              - send: {event: began, target: "#_parent"}
              - perform: {name: work, data: context.number}
            exit: [{perform: {name: slow, data: 0}}]
            invoke:
              id: clock
              chart:
                name: clock
                initial: ticking
                states:
                  ticking:
                    after: {5s: {actions: [{send: {event: tick, target: "#_parent"}}]}}
                    on: {tock: over}
                  over: {type: final}
            on:
              tick: {actions: [{assign: {told: context.told + 1}}, {send: {event: tock, target: "#_clock"}}]}
              told: {actions: [{assign: {told: context.told + 1}}]}
              thanks: {target: done, guard: context.number < 9}
              done.effect.work: {actions: [{send: {event: worked, target: "#_parent", delay: 1s}}]}
              error.effect.work: {actions: [{send: {event: worked, target: "#_parent"}}]}
          done: {type: final, output: context.told}
    on:
      began: {actions: [{assign: {heard: context.heard + 1}}]}
      worked: {actions: [{assign: {heard: context.heard + 1}}, {send: {event: thanks, target: "#_helper"}}]}
      done.invoke.helper: {target: asking, internal: false, guard: context.round < 2,
                           actions: [{assign: {round: context.round + 1}}]}
      error.invoke.helper: broken
      leave: resting
      again: {target: asking, internal: false, actions: [{assign: {round: context.round + 1}}]}
  resting:
    after: {4s: asking}
    on: {error.communication: {actions: [{assign: {lost: context.lost + 1}}]}}
  broken: {on: {again: asking}}
""")
"""Children that have children, events forwarded and sent both ways, invokes begun again and again."""


def passes(context: Any, event: Any) -> bool:
    """A guard that is code, which a process may lack."""
    return True


GATED = from_yaml(
    """
name: gated
context: {late: {type: int, default: 0}, told: {type: int, default: 0}}
initial: waiting
states:
  waiting:
    after:
      8s:
        - {target: resting, guard: context.late > 3}
        - {target: waiting, internal: false, guard: {function: passes}, actions: [{assign: {late: context.late + 1}}]}
    on: {go: working, ask: asking}
  working:
    entry: [{perform: {name: work, data: 1}}]
    on: {done.effect.work: waiting, error.effect.work: resting, ask: asking}
  asking:
    invoke: {id: one, chart: {name: one, initial: here, states: {here: {
      entry: [{send: {event: told, target: "#_parent"}}], after: {2s: there}}, there: {type: final}}}}
    on: {told: {actions: [{assign: {told: context.told + 1}}]}, done.invoke.one: working, error.invoke.one: resting}
  resting: {on: {go: working, ask: asking}}
""",
    passes=passes,
)
"""Timers, effects and children that a process can't go on with if it lacks a function of the chart."""

CHARTS: tuple[Chart, ...] = (TALLY, ORDER, JOBS, FAMILY, GATED)
CHILDREN = tuple(
    grandchild for chart in CHARTS for child in chart.children() for grandchild in (child, *child.children())
)
"""What they invoke."""
LATER = {
    TALLY.name: from_yaml(
        _TALLY.replace("version: '1'", "version: 1+more").replace("more + 1", "more + 10").replace("2s}", "4s}")
    ),
}
"""By name, what a running instance of a chart may be changed into."""
HANDLED = ("work", "slow")


class Play(NamedTuple):
    """How a workload plays one chart: the context of a start, and an event with its data, both drawn; and how long it
    waits between two at most."""

    chart: Chart
    context: Callable[[Random], dict[str, Any]]
    events: tuple[str, ...]
    pause_s: float = 4.0


PLAYS = (
    Play(TALLY, lambda rng: {"limit": rng.choice((2, 5, 50))}, ("add", "add", "add", "spread", "unknown", "shut")),
    Play(ORDER, lambda _: {}, ("pick", "pay", "pay", "abandon", "reopen", "forgive", "calm")),
    Play(JOBS, lambda _: {}, ("go", "go", "both", "patient", "watch", "watch", "fragile", "back", "back", "stop")),
    Play(FAMILY, lambda _: {}, ("told", "leave", "again", "again", "unknown")),
    Play(GATED, lambda _: {}, ("go", "go", "ask", "ask", "told", "unknown"), pause_s=24.0),
)
