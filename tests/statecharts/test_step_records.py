"""Steps of workflows in a chart: `run_step`, `record`, and final states that say how the instance ends."""

from __future__ import annotations

import pytest

from statewright.statecharts import Chart, ChartError, Event, StepRecord, chart, final, load_chart, record, run_step
from statewright.statecharts.builder import state, to
from statewright.statecharts.check import check
from statewright.statecharts.facts import Effect, Policy, RetryPolicy
from statewright.statecharts.scxml.writer import write_scxml
from statewright.statecharts.simulate import Simulation, parse_token

YAML = """
name: loading
context: {error: {type: string, default: ""}}
states:
  load:
    entry:
      - run_step: {step: load, timeout: 5s, retry: {attempts: 2}, cancel: on_exit}
      - record: {step: load, status: running}
    exit: {record: {step: load, status: cancelled}}
    on:
      done.effect.load: {target: end, actions: {record: {step: load, status: completed}}}
      error.effect.load: {target: broken, actions: {assign: {error: event.data.message}}}
      stop: stopped
  end: {type: final}
  broken: {type: final, status: failed}
  stopped: {type: final, status: cancelled}
"""


def loading() -> Chart:
    from statewright.statecharts.documents import read_document

    tree, lines = read_document(YAML.encode())
    return Chart.from_tree(tree, lines=lines)


def test_run_step_asks_for_an_effect_of_kind_step_with_its_policy() -> None:
    step = loading().machine.start({})
    policy = Policy(RetryPolicy(attempts=2), 5_000_000_000, until="load")
    assert step.effects == (Effect("load", "step", None, "load", policy),)
    assert step.records == (StepRecord("load", "running"),)


def test_the_last_record_of_a_step_in_a_macrostep_counts() -> None:
    machine = loading().machine
    started = machine.start({})
    done = machine.step(started.snapshot, Event("done.effect.load"))
    assert done.records == (StepRecord("load", "completed"),)
    stopped = machine.step(started.snapshot, Event("stop"))
    assert stopped.records == (StepRecord("load", "cancelled"),)


def test_a_final_state_says_how_the_instance_ends() -> None:
    machine = loading().machine
    started = machine.start({})
    assert machine.step(started.snapshot, Event("done.effect.load")).status == "completed"
    assert machine.step(started.snapshot, Event("stop")).status == "cancelled"
    failed = machine.step(started.snapshot, Event("error.effect.load", {"message": "no such file"}))
    assert (failed.status, failed.error) == ("failed", "no such file")


def test_simulate_tells_the_status() -> None:
    simulation = Simulation(loading())
    assert [effect.kind for effect in simulation.begin().effects] == ["step"]
    assert simulation.feed(parse_token('error.effect.load={"message": "full"}')).status == "failed"
    assert simulation.reason == ""
    assert simulation.feed(parse_token("stop")).status == "failed"


def test_python_json_and_scxml_say_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    written = loading()
    built = chart(
        "loading",
        context={"error": {"type": "string", "default": ""}},
        states=[
            state(
                "load",
                entry=[
                    run_step("load", timeout="5s", retry={"attempts": 2}, cancel="on_exit"),
                    record("load", "running"),
                ],
                exit=record("load", "cancelled"),
                on={
                    "done.effect.load": to("end", actions=record("load", "completed")),
                    "error.effect.load": to("broken", actions={"assign": {"error": "event.data.message"}}),
                    "stop": "stopped",
                },
            ),
            final("end"),
            final("broken", status="failed"),
            final("stopped", status="cancelled"),
        ],
    )
    assert built.digest == written.digest == Chart.from_json(written.to_json()).digest
    path = tmp_path / "loading.scxml"
    path.write_text(write_scxml(written.definition))
    machine = load_chart(path).machine
    started = machine.start({})
    assert [effect.kind for effect in started.effects] == ["step"]
    assert machine.step(started.snapshot, Event("stop")).status == "cancelled"
    assert machine.step(started.snapshot, Event("stop")).records == (StepRecord("load", "cancelled"),)


def test_check_has_nothing_to_say() -> None:
    assert check(loading(), info=False) == []


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"a": {"status": "failed"}}, "expected a status only on a final state of the chart itself"),
        ({"a": {"states": {"b": {"type": "final", "status": "failed"}}}}, "got one on a state inside another"),
        ({"a": {"type": "final", "status": "fialed"}}, "did you mean 'failed'?"),
        ({"a": {"entry": {"record": {"step": "load"}}}}, "expected 'status' in 'record'"),
        ({"a": {"entry": {"record": {"step": "load", "status": "done"}}}}, "expected pending or running"),
        ({"a": {"entry": {"run_step": {"timeout": "5s"}}}}, "expected 'step' in 'run_step'"),
        ({"a": {"entry": {"run_step": {"step": "load", "timeout": "soon"}}}}, "expected a duration such as 30s"),
    ],
)
def test_faults(states: object, message: str) -> None:
    with pytest.raises(ChartError) as caught:
        Chart.from_tree({"name": "x", "states": states})
    assert message in str(caught.value)
