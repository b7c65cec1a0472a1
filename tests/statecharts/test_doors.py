"""One model, several doors: the same chart gives the same digest, and a stored definition comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statewright.statecharts import (
    Chart,
    ChartError,
    Event,
    Retry,
    StatewrightError,
    assign,
    call,
    cancel,
    chart,
    emit,
    final,
    history,
    if_,
    load_chart,
    log,
    parallel,
    perform,
    raise_,
    send,
    state,
    to,
)
from tests.statecharts.behaviour import read

WRITTEN = """
name: order
version: 2
description: Everything once
context:
  amount: int
  rate: {type: double, default: 2}
  buyer: string?
  tags: {type: list(string), default: []}
  extra: {type: 'map(string, dyn)', default: {}}
subscribe:
  - {subject: orders.paid, event: paid, instance: data.order, id: data.id}
initial: open
on: {abort: {target: gone, actions: [{cancel: reminder}]}}
states:
  open:
    description: Being put together
    tags: [early]
    entry:
      - welcome
      - assign: {amount: context.amount + 1}
      - send: {event: remind, delay: 1h, id: reminder}
      - if: {guard: context.amount > 10, then: [big], else: [{log: {expr: context.amount, label: small}}]}
    exit: [{raise: left}]
    on:
      pay:
        - {target: packing, guard: {function: solvent}, actions: [{assign: {function: stamp}}]}
        - {target: gone, guard: context.amount > 1000}
      left: {}
    after:
      24h: {target: gone}
      "context.rate > 1.0 ? '1h' : '2h'": {actions: [{emit: {subject: orders.late, data: {n: context.amount}}}]}
  packing:
    type: parallel
    states:
      goods: {states: {picking: {on: {picked: packed}}, packed: {type: final}}}
      papers:
        initial: {target: typing, actions: [{call: {service: office, method: type}}]}
        states:
          typing: {always: {target: typed, guard: "In('packed')"}}
          typed: {type: final}
          back: {history: deep, target: typing}
    on:
      done.state.packing: {target: sent}
      again: {target: [picking, back]}
      note: {actions: [{perform: {name: note, data: event.data}}], internal: true}
      bill:
        actions:
          - perform:
              name: bill
              retry: {attempts: 3, initial: 2s, maximum: 1m, multiplier: 3, jitter: 0.5, final: [ValueError]}
              timeout: 30s
              heartbeat: 10s
              cancel: on_exit
          - {call: {service: office, method: file, timeout: 5s, heartbeat: 1s, retry: {attempts: 2}}}
          - {emit: {subject: orders.billed, retry: {attempts: 9}, cancel: never}}
  sent: {type: final, output: {amount: context.amount}}
  gone: {type: final}
"""


class Order(msgspec.Struct):
    amount: int
    rate: float = 2.0
    buyer: str | None = None
    tags: list[str] = []
    extra: dict[str, Any] = {}


def solvent(context: Any, event: Event) -> bool:
    return context.buyer is not None


def stamp(context: Any, event: Event) -> dict[str, Any]:
    return {"tags": [*context.tags, "paid"]}


RETRY = Retry(attempts=3, initial="2s", maximum="1m", multiplier=3, jitter=0.5, final=("ValueError",))


def built() -> Chart:
    big = if_("context.amount > 10", then=["big"], else_=[log("context.amount", "small")])
    return chart(
        "order",
        version="2",
        description="Everything once",
        context=Order,
        subscribe=[{"subject": "orders.paid", "event": "paid", "instance": "data.order", "id": "data.id"}],
        initial="open",
        on={"abort": to("gone", actions=[cancel("reminder")])},
        states=[
            state(
                "open",
                description="Being put together",
                tags=["early"],
                entry=["welcome", assign(amount="context.amount + 1"), send("remind", delay="1h", id="reminder"), big],
                exit=[raise_("left")],
                on={
                    "pay": [
                        to("packing", guard=solvent, actions=[assign(stamp)]),
                        to("gone", guard="context.amount > 1000"),
                    ],
                    "left": to(),
                },
                after={
                    "24h": "gone",
                    "context.rate > 1.0 ? '1h' : '2h'": to(actions=emit("orders.late", {"n": "context.amount"})),
                },
            ),
            parallel(
                "packing",
                states=[
                    state("goods", states=[state("picking", on={"picked": "packed"}), final("packed")]),
                    state(
                        "papers",
                        initial=to("typing", actions=[call("office", "type")]),
                        states=[
                            state("typing", always=to("typed", guard="In('packed')")),
                            final("typed"),
                            history("back", kind="deep", target="typing"),
                        ],
                    ),
                ],
                on={
                    "done.state.packing": "sent",
                    "again": to(["picking", "back"]),
                    "note": to(actions=[perform("note", "event.data")], internal=True),
                    "bill": to(
                        actions=[
                            perform(
                                "bill",
                                retry=RETRY,
                                timeout="30s",
                                heartbeat="10s",
                                cancel="on_exit",
                            ),
                            call("office", "file", timeout="5s", heartbeat="1s", retry={"attempts": 2}),
                            emit("orders.billed", retry=Retry(attempts=9), cancel="never"),
                        ]
                    ),
                },
            ),
            final("sent", output={"amount": "context.amount"}),
            final("gone"),
        ],
    )


def test_yaml_and_python_give_the_same_definition() -> None:
    written = read(WRITTEN, solvent=solvent, stamp=stamp)
    assert json.loads(built().to_json()) == json.loads(written.to_json())
    assert built().digest == written.digest
    assert built().functions == written.functions == {"solvent": solvent, "stamp": stamp}


def test_the_canonical_json_is_read_by_every_door(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    path.write_bytes(built().to_json())
    functions = {"solvent": solvent, "stamp": stamp}
    assert load_chart(path, functions).digest == Chart.from_json(path.read_bytes(), functions).digest == built().digest


def test_the_digest_follows_the_meaning_not_the_writing() -> None:
    short = read("states: {a: {on: {go: b}}, b: {}}")
    long = read('version: "1"\nstates:\n  - {id: a, type: atomic, transitions: [{event: go, target: [b]}]}\n  - id: b')
    other = read("states: {b: {}, a: {on: {go: b}}}")
    assert short.digest == long.digest
    assert short.digest != other.digest


def test_a_stored_definition_whose_function_is_gone_is_refused_by_name() -> None:
    with pytest.raises(ChartError, match="no function 'solvent' is registered") as caught:
        Chart.from_json(built().to_json(), {"stamp": stamp})
    assert caught.value.chart == "order"
    assert [fault.path for fault in caught.value.faults] == ["states.open.transitions[0].guard"]


def test_a_stored_definition_that_is_none_is_refused() -> None:
    for data in (b"", b"{}", b"[1]", b'{"name": "x", "states": 5}', b'{"name":"x","surprise":1}', b"\xff"):
        with pytest.raises(ChartError, match="not a definition"):
            Chart.from_json(data)


def test_a_file_is_loaded_once_and_by_its_attribute(tmp_path: Path) -> None:
    path = tmp_path / "my_chart.py"
    path.write_text(
        "from statewright.statecharts import chart, state\nhello = chart('hello', states=[state('a')])\nnumber = 5\n"
    )
    assert load_chart(f"{path}:hello").name == "hello"
    assert load_chart(f"{path}:hello") is load_chart(f"{path}:hello")
    with pytest.raises(StatewrightError, match="expected a Chart"):
        load_chart(f"{path}:number")
    assert load_chart("tests.statecharts.test_doors:ATTRIBUTE").name == "attribute"


ATTRIBUTE = chart("attribute", states=[state("only")])


def test_functions_are_known_by_their_names() -> None:
    with pytest.raises(ChartError, match="a function with a name of its own"):
        chart("x", states=[state("a", on={"go": to("a", guard=lambda context, event: True)})])

    def solvent(context: Any, event: Event) -> bool:
        return False

    with pytest.raises(ChartError, match="one function named 'solvent', got two"):
        chart("x", states=[state("a", on={"go": [to("a", guard=solvent), to("a", guard=globals()["solvent"])]})])


def test_a_struct_that_json_does_not_have_is_refused() -> None:
    class Odd(msgspec.Struct):
        when: complex
        both: int | str

    with pytest.raises(ChartError) as caught:
        chart("x", context=Odd, states=[state("a")])
    assert [fault.path for fault in caught.value.faults] == ["context.when", "context.both"]
