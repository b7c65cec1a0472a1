"""Where an execution stands follows from its steps' results: told anew, in any order, they lead to the same place."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statewright.engine.events import AnyFact, InstanceStarted, TransitionTaken, Trigger
from statewright.engine.instance import Instance, fold
from statewright.engine.steps import StepRow, fold_steps
from statewright.engine.workflows.plans import Plan, workflow_of
from statewright.engine.workflows.positions import Outcome, outcomes_of, placement, position
from statewright.statecharts import Event, Snapshot, Step
from statewright.statecharts.chart import Chart
from statewright.statecharts.placing import place
from statewright.statecharts.workflows import Workflow
from tests.statecharts.workflows.random_workflows import random_workflow

property_test = settings(max_examples=100, suppress_health_check=list(HealthCheck))


class Execution:
    """An execution of a workflow, run purely, with its facts."""

    def __init__(self, tree: dict[str, Any], given_input: dict[str, bool]) -> None:
        self.tree = tree
        self.chart: Chart = Workflow.from_tree(tree).chart()
        self.plan = plan_of(self.chart)
        self.facts: list[AnyFact] = []
        step = self.chart.machine.start({"input": given_input})
        place_: dict[str, Any] = {"definition": "random", "version": "1", "digest": "d"}
        self._take(step, lambda fields: InstanceStarted(**place_, **fields))

    def _take(self, step: Step, fact: Any) -> None:
        assert step.reason == ""
        self.snapshot: Snapshot = step.snapshot
        self.status = step.status
        fields = {"instance_id": "e", "sequence": len(self.facts) + 1, "time": len(self.facts)}
        fields |= {"configuration": self.chart.machine.names(step.snapshot.configuration), "context": step.context}
        self.facts.append(fact({**fields, "steps": step.records, "status": step.status}))

    def feed(self, name: str, data: Any) -> None:
        step = self.chart.machine.step(self.snapshot, Event(name, data))
        trigger = Trigger(name, f"{len(self.facts)}-result", kind="effect", data=data)
        self._take(step, lambda fields: TransitionTaken(trigger=trigger, **fields))

    @property
    def running(self) -> list[str]:
        return [name for name in self.instance.configuration if name in self.plan.steps]

    @property
    def instance(self) -> Instance:
        found = fold(self.facts)
        assert found is not None
        return found

    @property
    def rows(self) -> dict[str, StepRow]:
        return {row.step: row for row in fold_steps(self.facts)}

    @property
    def outcomes(self) -> list[Outcome]:
        return outcomes_of((row for row in self.rows.values() if row.step in self.plan.steps), self.facts)


def plan_of(chart: Chart) -> Plan:
    workflow = workflow_of(chart.definition)
    assert workflow is not None
    return Plan(workflow)


def run_for_a_while(lots: Random) -> Execution | None:
    """Some execution that still has steps to do; None if it has come to its end."""
    tree = random_workflow(lots)
    names = [step["id"] for step in tree["steps"]]
    execution = Execution(tree, {name: lots.random() < 0.6 for name in [*names, "branch"]})
    for _ in range(lots.randint(0, 10)):
        if execution.status != "active" or not execution.running:
            return None
        name = lots.choice(execution.running)
        if lots.random() < 0.15:
            execution.feed(f"error.effect.{name}", {"message": "no"})
        else:
            execution.feed(f"done.effect.{name}", {"of": name})
    return execution if execution.status == "active" and "running" in execution.instance.configuration else None


@property_test
@given(st.integers(0, 2**32))
def test_told_anew_results_lead_to_the_same_place(seed: int) -> None:
    lots = Random(seed)
    execution = run_for_a_while(lots)
    if execution is None:
        return
    outcomes = execution.outcomes
    lots.shuffle(outcomes)
    limited = execution.plan.workflow.concurrency is not None
    found = position(execution.chart, execution.instance, outcomes, limited=limited)
    assert found.untold == ()
    settled = {name for name, row in execution.rows.items() if row.status in ("completed", "failed", "skipped")}
    assert {name for name, status in found.statuses.items() if status != "running"} == settled
    assert set(execution.running) <= set(found.leaves)
    counted = ("completed", "failed", "skipped")
    assert [found.context[name] for name in counted] == [execution.snapshot.context[name] for name in counted]
    assert sorted(found.context.get("undo", ())) == sorted(execution.snapshot.context.get("undo", ()))
    if not limited:
        assert found.active == execution.instance.configuration


@property_test
@given(st.integers(0, 2**32))
def test_what_runs_goes_on_in_a_workflow_with_more_steps(seed: int) -> None:
    lots = Random(seed)
    execution = run_for_a_while(lots)
    if execution is None:
        return
    names = [step["id"] for step in execution.tree["steps"] if step["id"] != "spare"]
    in_line = execution.plan.workflow.mode in ("sequential", "pipeline")
    added = []
    for number in range(lots.randint(1, 3)):
        needed = [] if in_line else lots.sample(names, min(len(names), lots.randint(0, 2)))
        added.append({"id": f"x{number}", "function": "perform", "dependencies": needed})
    chart = Workflow.from_tree({**execution.tree, "steps": [*execution.tree["steps"], *added]}).chart()
    plan, instance, outcomes = plan_of(chart), execution.instance, execution.outcomes
    limit = plan.workflow.concurrency
    found = position(chart, instance, outcomes, limited=limit is not None)
    assert found.untold == ()
    there = placement(plan, instance, execution.rows, found, outcomes, keep=True)
    machine = chart.machine
    step = place(machine, machine.restore((), there.context, {}, instance.serial), there.targets, there.keep)
    assert step.reason == ""
    running = [name for name in machine.names(step.snapshot.configuration) if name in plan.steps]
    assert set(execution.running) <= set(running)
    # Nothing is asked for that runs already, or has been done.
    assert not {effect.name for effect in step.effects} & {*execution.running, *(o.row.step for o in outcomes)}
    assert there.restored == ()
    if limit is not None:
        assert len(running) <= limit
        assert step.snapshot.context["free"] == limit - len(running)
