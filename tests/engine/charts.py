"""The charts that the engine's tests run."""

from __future__ import annotations

from typing import Any

from statewright.statecharts import Chart
from statewright.statecharts.documents import read_document


def from_yaml(text: str, **functions: Any) -> Chart:
    tree, lines = read_document(text.encode())
    return Chart.from_tree(tree, functions, lines)


APPROVAL = from_yaml("""
name: approval
context:
  amount: int
  approvals: {type: int, default: 0}
  notes: {type: list(string), default: []}
initial: draft
states:
  draft:
    on:
      submit: {target: review, guard: context.amount > 0}
  review:
    entry: [{perform: {name: notify, data: {amount: context.amount}}}]
    after:
      24h: {actions: [{assign: {notes: "context.notes + ['reminded']"}}]}
      72h: escalated
    on:
      approve:
        - {target: approved, guard: context.approvals >= 1 || context.amount < 1000}
        - {actions: [{assign: {approvals: context.approvals + 1}}]}
      reject: draft
      note: {actions: [{assign: {notes: "context.notes + [string(event.data.text)]"}}]}
      done.effect.notify: {actions: [{assign: {notes: "context.notes + ['notified']"}}]}
  escalated:
    on: {approve: approved}
  approved: {type: final}
""")
"""Submitted with a positive amount, approved once below 1,000 and twice above; reminds, escalates, notifies."""

COUNTER = from_yaml("""
name: counter
context:
  total: {type: int, default: 0}
  seen: {type: list(int), default: []}
initial: counting
states:
  counting:
    on:
      add: {actions: [{assign: {total: context.total + int(event.data), seen: "context.seen + [int(event.data)]"}}]}
      pass: {guard: context.total > 1000000, target: counting}
      stop: stopped
  stopped: {type: final}
""")
"""Adds numbers up, in the order in which they come."""

TIMERS = from_yaml("""
name: timers
context:
  rung: {type: list(string), default: []}
initial: idle
states:
  idle:
    on:
      set: {actions: [{send: {event: ring.a, delay: 10s, id: a}}]}
      set_again: {actions: [{send: {event: ring.a, delay: 20s, id: a}}]}
      unset: {actions: [{cancel: a}]}
      set_many:
        actions:
          - {send: {event: ring.z, delay: 10s, id: z}}
          - {send: {event: ring.m, delay: 10s, id: m}}
          - {send: {event: ring.b, delay: 10s, id: b}}
      burst:
        actions: [{send: now.1}, {send: now.2}, {send: now.3}, {send: now.4}, {send: now.5}, {send: now.6},
                  {send: now.7}, {send: now.8}, {send: now.9}, {send: now.10}, {send: now.11}, {send: now.12}]
      ring.*: {actions: [{assign: {rung: "context.rung + [event.name]"}}]}
      now.*: {actions: [{assign: {rung: "context.rung + [event.name]"}}]}
      wait: waiting
      end: ended
  waiting:
    after: {60s: timed_out}
    on: {leave: idle, again: waiting}
  timed_out:
    on: {reset: waiting}
  ended: {type: final}
""")

EFFECTS = from_yaml("""
name: effects
context:
  results: {type: list(dyn), default: []}
initial: ready
states:
  ready:
    on:
      go: {target: working, actions: [{perform: {name: work, data: {n: event.data}}}]}
      both: {actions: [{perform: work}, {perform: other}]}
      end: {target: ended, actions: [work]}
      done.effect.*: {actions: [{assign: {results: "context.results + [event.data]"}}]}
  working:
    on:
      done.effect.work: {target: ready, actions: [{assign: {results: "context.results + [event.data]"}}]}
      error.effect.work: {target: broken, actions: [{assign: {results: "context.results + [event.data.message]"}}]}
      go: {actions: [{perform: {name: work, data: {n: event.data}}}]}
      handoff: fragile
  fragile:
    on: {back: ready}
  broken:
    on: {go: working}
  ended: {type: final}
""")

AT_ONCE = from_yaml("""
name: at_once
context: {who: string}
initial: begun
states:
  begun:
    entry: [{perform: {name: greet, data: {who: context.who}}}]
    always: over
  over: {type: final, output: {greeted: context.who}}
""")
"""Completes as it starts."""
