"""Random workflows with random outcomes do what an independent model says: what runs, is skipped, is undone."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from statewright.statecharts import Event, Snapshot, Step
from statewright.statecharts.chart import Machine
from statewright.statecharts.workflows import Workflow
from tests.statecharts.workflows.random_workflows import Model, random_workflow


class _Run:
    """The chart of a workflow, run purely. `status`: the last record of each step."""

    def __init__(self, workflow: Workflow, given_input: dict[str, bool]) -> None:
        self.machine: Machine = workflow.chart().machine
        self.status: dict[str, str] = {}
        self.asked: list[str] = []
        self.ending = "active"
        self.snapshot: Snapshot
        self._take(self.machine.start({"input": given_input}))

    def feed(self, name: str, data: object = None) -> None:
        step = self.machine.step(self.snapshot, Event(name, data))
        assert step.reason == ""
        self._take(step)

    def _take(self, step: Step) -> None:
        assert step.reason == ""
        self.snapshot = step.snapshot
        self.status |= {record.step: record.status for record in step.records}
        self.asked += [effect.name for effect in step.effects]
        self.ending = step.status
        running = {name for name, status in self.status.items() if status == "running"}
        assert {effect.name for effect in step.effects} <= running

    @property
    def running(self) -> set[str]:
        return {name for name, status in self.status.items() if status == "running"}


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
@example(181461579)  # A group that several steps had to be waited for was left when the waiting was over.
def test_a_workflow_does_what_its_rules_say(seed: int) -> None:
    lots = Random(seed)
    tree = random_workflow(lots)
    workflow = Workflow.from_tree(tree)
    names = [step.id for step in workflow.steps]
    given_input = {name: lots.random() < 0.6 for name in [*names, "branch"]}
    run, model = _Run(workflow, given_input), Model(workflow, given_input)
    failing = lots.choice([0.0, 0.1, 0.3])
    while True:
        ready = model.ready()
        _start(run, model, ready, workflow.concurrency)
        _agree(run, model, ready)
        if model.ending or model.is_over:
            break
        name = lots.choice(sorted(run.running))
        if lots.random() < failing:
            model.fail(name)
            run.feed(f"error.effect.{name}", {"message": "no"})
        else:
            model.done(name)
            run.feed(f"done.effect.{name}", {"of": name})
        if model.ending:
            break
    _finish(run, model, lots)


def _start(run: _Run, model: Model, ready: list[str], limit: int | None) -> None:
    """With a limit it is the chart's choice which of those that are ready run; there must be as many as can."""
    fresh = [name for name in ready if name in run.running]
    if limit is None:
        assert fresh == ready
    else:
        assert len(model.running) + len(fresh) == min(limit, len(model.running) + len(ready))
    for name in fresh:
        model.start(name)


def _agree(run: _Run, model: Model, ready: list[str]) -> None:
    said = {name: status for name, status in model.status.items() if name != "group"}
    assert run.status == said
    assert len(run.asked) == len(set(run.asked))
    context = run.snapshot.context
    for counter in ("completed", "failed"):
        assert context[counter] == sum(status == counter for status in said.values())


def _finish(run: _Run, model: Model, lots: Random) -> None:
    """Completed, or undone in the reverse order of completion, whether or not undoing succeeds."""
    if not model.ending:
        assert run.ending == "completed"
        assert run.snapshot.context["skipped"] == sum(
            status == "skipped" for name, status in model.status.items() if name != "group"
        )
        return
    cancelled = {name for name, status in run.status.items() if status == "cancelled"}
    assert cancelled == {name for name, status in model.status.items() if status == "cancelled"}
    kept = [step.id for step in model.workflow.steps if step.compensate_failure and step.rollback]
    late = [name for name in reversed(model.order) if name in cancelled and name in kept]
    expected = [f"undo_{name}" for name in reversed(model.undo)]
    undone = []
    while run.running:
        (name,) = run.running
        undone.append(name)
        failed = lots.random() < 0.2
        run.feed(f"{'error' if failed else 'done'}.effect.{name}", {"message": "no"})
        assert run.status[name] == ("compensation_failed" if failed else "compensated")
    assert [name for name in undone if name in expected] == expected
    assert {name for name in undone if name not in expected} == {f"undo_{name}" for name in late}
    assert run.ending == "failed"
    assert run.snapshot.context.get("undo", []) == []
