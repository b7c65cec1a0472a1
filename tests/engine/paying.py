"""A chart that pays in several ways, and what tests of its effects ask of a world."""

from __future__ import annotations

from typing import Any

from statewright.engine import EffectCall
from statewright.engine.recorder import EffectRow
from tests.engine.charts import from_yaml
from tests.engine.worlds import World, until

PAYING = from_yaml("""
name: paying
context:
  results: {type: list(dyn), default: []}
initial: ready
states:
  ready:
    on:
      retried: {target: paid, actions: [{perform: {name: pay, retry: {attempts: 3, initial: 10s, multiplier: 3,
                maximum: 20s, final: [ValueError]}, timeout: 2s}}]}
      plain: {target: paid, actions: [pay]}
      beating: {target: paid, actions: [{perform: {name: pay, heartbeat: 10s, timeout: 1h, retry: {attempts: 2}}}]}
      bind: bound
      both: two
      leave_word: {actions: [{perform: {name: pay, cancel: on_exit}}], target: bound}
      end: ended
  paid:
    on:
      done.effect.pay: {target: ready, actions: [{assign: {results: "context.results + [event.data]"}}]}
      error.effect.pay: {target: ready, actions: [{assign: {results: "context.results + [event.data.message]"}}]}
  bound:
    entry: [{perform: {name: pay, cancel: on_exit, retry: {attempts: 4, initial: 1s, maximum: 1s}}}]
    on:
      leave: ready
      again: bound
      stay: {actions: [{assign: {results: "context.results + ['stayed']"}}]}
      end: ended
      done.effect.pay: {target: ready, actions: [{assign: {results: "context.results + [event.data]"}}]}
      error.effect.other: ready
  two:
    type: parallel
    states:
      left: {entry: [{perform: {name: pay, cancel: on_exit}}], on: {done.effect.pay: {}}}
      right: {entry: [other]}
  ended: {type: final}
""")


async def effects(world: World) -> list[EffectRow]:
    return list(await world.engine.effects("e"))


async def until_effect(world: World, state: str, attempt: int, index: int = 0) -> EffectRow:
    async def reached() -> bool:
        rows = await effects(world)
        return len(rows) > index and (rows[index].state, rows[index].attempt) == (state, attempt)

    await until(reached, f"effect {index} to be {state} after attempt {attempt}")
    return (await effects(world))[index]


async def begin(world: World, event: str) -> None:
    await world.engine.start("paying", id="e")
    await world.engine.send("e", event)


async def results(world: World) -> list[Any]:
    return list((await world.engine.replay("e")).instance.context["results"])


def failing(error: Exception) -> Any:
    async def pay(call: EffectCall) -> None:
        raise error

    return pay
