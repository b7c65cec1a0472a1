"""Compiles a workflow to an ordinary chart: a step is a state whose entry has it performed.

    running        the lanes (see `lanes`); in a lane one step after the other
    rolling_back   what undoes completed steps, the last one first; only if a step has a rollback step
    prepared       only in a transaction: all is done, and it waits for `workflow.commit` or `workflow.rollback`
    completed, failed, cancelled

Beside the state `load`, in which a step runs, there may be `load.waiting` (for others), `load.gate` (does its condition
hold?), `load.queued` (for a free place, where concurrency is limited), `load.skip` (it is skipped). Steps' ids have no
dots, so these collide with none. Regions are called `lane.load` and `join.load`, for the event `done.state.load.lane`
would be one of `done.state.load`, too.

Invariant: what happens for a step costs no more in a workflow of a thousand: who waits is told by name, what is awaited
is counted in states, and the context holds counters and only those results that a condition asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from statewright.statecharts import definition as d
from statewright.statecharts.workflows import rollback
from statewright.statecharts.workflows.conditions import in_chart, mentioned, result_fields
from statewright.statecharts.workflows.dependencies import Unit, conditions_of, units_of
from statewright.statecharts.workflows.lanes import Join, Lanes
from statewright.statecharts.workflows.model import ParallelGroup, WorkflowDefinition, WorkflowStep, fallbacks, line_of
from statewright.statecharts.workflows.validation import retry_of

Actions = tuple[d.AnyAction, ...]

_CHARS = len("error.effect.")
FAILED = (
    f'"step \'" + event.name.substring({_CHARS}) + "\' failed" + '
    "(event.data != null && has(event.data.message) ? ': ' + string(event.data.message) : '')"
)
"""Why a workflow was aborted, told from the event of its step."""
REASON = "event.data != null && has(event.data.reason) ? string(event.data.reason) : '{}'"


def compile_workflow(workflow: WorkflowDefinition) -> d.Definition:
    """The chart of a workflow that was validated."""
    return _Compiler(workflow).compile()


class _Compiler:
    def __init__(self, workflow: WorkflowDefinition) -> None:
        self.workflow = workflow
        self.steps = {step.id: step for step in workflow.steps}
        self.units = units_of(workflow)
        self.conditions = conditions_of(workflow)
        self.fallbacks = fallbacks(workflow)
        asked = {step for texts in self.conditions.values() for text in texts for step in mentioned(text)[0]}
        self.results = result_fields([step for step in self.steps if step in asked])
        self.undone = rollback.rollbacks(workflow)
        self.limit = workflow.concurrency
        conditional = {unit.id for unit in self.units.values() if unit.group is None and self._may_skip(unit.steps[0])}
        self.lanes = Lanes(self.units, conditional, sequential=workflow.in_line)

    def compile(self) -> d.Definition:
        workflow = self.workflow
        return d.Definition(
            name=workflow.id,
            version=workflow.version,
            description=workflow.description or workflow.name,
            context=self._context(),
            states=(
                self._running(),
                *rollback.states(self.undone),
                *rollback.endings(self.undone),
            ),
            meta={"workflow": d.to_tree(workflow)},
        )

    def _context(self) -> tuple[d.Declaration, ...]:
        fields = [
            d.Declaration(name="input", type="map(string, dyn)", default={}),
            *(d.Declaration(name=name, type="int", default=0) for name in ("completed", "failed", "skipped")),
            d.Declaration(name="error", type="string?"),
            d.Declaration(name="transaction", type="string", default=""),
            d.Declaration(name="execution", type="string", default=""),
            *(d.Declaration(name=name, type="dyn?") for name in self.results.values()),
        ]
        if self.undone:
            fields += [
                d.Declaration(name="undo", type="list(string)", default=[]),
                d.Declaration(name="ending", type="string", default="failed"),
            ]
        if self.lanes.recalled:
            fields.append(d.Declaration(name="skips", type="list(string)", default=[]))
        if self.limit is not None:
            fields += [
                d.Declaration(name="free", type="int", default=self.limit),
                d.Declaration(name="queue", type="list(string)", default=[]),
            ]
        return tuple(fields)

    # -- the whole -----------------------------------------------------------------------------------------------

    def _running(self) -> d.State:
        regions = [self._lane(lane) for lane in self.lanes.lanes]
        regions += [self._counting(join) for join in self.lanes.joins.values() if len(join.members) > 1]
        alone = len(regions) == 1
        transitions = [
            d.Transition(events=("done.state.running",), guard="context.transaction != ''", target=("prepared",)),
            d.Transition(events=("done.state.running",), target=("completed",)),
            self._ends("workflow.cancel", REASON.format("cancelled"), "cancelled"),
            self._ends("workflow.abort", REASON.format("aborted"), "failed"),
            self._ends("error.execution", "event.data.reason", "failed"),
        ]
        if self.workflow.timeout:
            said = f"'it took longer than {self.workflow.timeout}'"
            transitions.append(
                d.Transition(
                    delay=self.workflow.timeout,
                    target=(rollback.target(self.undone, "failed"),),
                    actions=rollback.why(self.undone, said, "failed"),
                )
            )
        return d.State(
            id="running",
            type="compound" if alone else "parallel",
            description=self.workflow.name,
            transitions=tuple(transitions),
            states=regions[0].states if alone else tuple(regions),
        )

    def _ends(self, event: str, why: str, ending: str) -> d.Transition:
        target = rollback.target(self.undone, ending)
        return d.Transition(events=(event,), target=(target,), actions=rollback.why(self.undone, why, ending))

    def _lane(self, lane: Sequence[str]) -> d.State:
        """A lane as a compound state: named after the first step in it."""
        first = lane[0]
        states: list[d.State] = []
        for index, unit_id in enumerate(lane):
            following = lane[index + 1] if index + 1 < len(lane) else None
            states += self._unit(self.units[unit_id], following, f"{first}.end")
        states.append(d.State(id=f"{first}.end", type="final"))
        return d.State(id=f"lane.{first}", type="compound", states=tuple(states))

    # -- waiting -------------------------------------------------------------------------------------------------

    def _waiting(self, unit: Unit) -> list[d.State]:
        """The states in which a unit that begins a lane waits for what it requires."""
        run, skip = self._entry(unit), f"{unit.id}.skip"
        if not unit.requires:
            return []
        join = self.lanes.joins.get(self.lanes.join_of.get(unit.id, ""))
        if join is not None and len(join.members) == 1:
            return self._counted(join, f"{unit.id}.waiting", (run, ()), (skip, ()))
        event = f"step.{unit.requires[0]}" if join is None else f"ready.{join.id}"
        transitions = [d.Transition(events=(f"{event}.done",), target=(run,))]
        if unit.id in self.lanes.may_skip and self._required_may_skip(unit.requires, is_any=unit.any):
            transitions.append(d.Transition(events=(f"{event}.skipped",), target=(skip,)))
        return [d.State(id=f"{unit.id}.waiting", transitions=tuple(transitions))]

    def _counting(self, join: Join) -> d.State:
        """A lane that counts for several who wait for the same, and tells them."""
        name = f"join.{join.id}"
        end = f"{name}.end"
        ready, skipped = ((end, (d.Raise(event=f"ready.{join.id}.{how}"),)) for how in ("done", "skipped"))
        states = self._counted(join, name + ".waiting", ready, skipped)
        return d.State(id=name, type="compound", states=(*states, d.State(id=end, type="final")))

    def _counted(
        self, join: Join, name: str, ready: tuple[str, Actions], skipped: tuple[str, Actions]
    ) -> list[d.State]:
        """A state for each number of sources that are settled; for any-of, another if one of them is done."""
        total = len(join.sources)
        told, spared = f"join.{join.id}.done", f"join.{join.id}.skipped"
        may_skip = sum(source in self.lanes.may_skip for source in join.sources)
        counted = [name, *(f"{name}.{number}" for number in range(1, total))]
        if not join.any or not may_skip:
            states = []
            for state, following in zip(counted, [*counted[1:], None], strict=True):
                transitions = [_go(told, ready if following is None else (following, ()))]
                if may_skip:
                    transitions.append(_go(spared, skipped))
                states.append(d.State(id=state, transitions=tuple(transitions)))
            return states
        lucky = [f"{name}.{number}.done" for number in range(1, total)]
        states = []
        for number, state in enumerate(counted[: may_skip + 1]):
            last = number == total - 1
            transitions = [_go(told, ready if last else (lucky[number], ()))]
            if last:
                transitions += [_go(spared, skipped)] if may_skip == total else []
            elif number < may_skip:
                transitions.append(_go(spared, (counted[number + 1], ())))
            states.append(d.State(id=state, transitions=tuple(transitions)))
        for state, following in zip(lucky, [*lucky[1:], None], strict=True):
            target, actions = ready if following is None else (following, ())
            transition = d.Transition(events=(told, spared), target=(target,), actions=actions)
            states.append(d.State(id=state, transitions=(transition,)))
        return states

    def _required_may_skip(self, requires: Sequence[str], *, is_any: bool) -> bool:
        """Whether what it requires can make a unit be skipped."""
        skippable = [required in self.lanes.may_skip for required in requires]
        return all(skippable) if is_any else any(skippable)

    # -- units ---------------------------------------------------------------------------------------------------

    def _unit(self, unit: Unit, following: str | None, end: str) -> list[d.State]:
        """The states of a unit; `following` is the next in its lane, `end` the lane's final state."""
        states = [] if unit.id in self.lanes.after.values() else self._waiting(unit)
        done = self._entry(self.units[following]) if following is not None else end
        skipped = done
        if following is not None and self.units[following].requires == (unit.id,):
            skipped = f"{following}.skip"
        told: Actions = self._told(unit.id, "done")
        if unit.group is not None:
            if test := self._skip_test(unit):
                states.append(_gate(unit.id, [test], unit.id, f"{unit.id}.skip"))
            states.append(self._group(unit.group, unit.steps, (done, told)))
        else:
            states += self._step(unit.steps[0], self._skip_test(unit), (done, told), f"{unit.id}.skip")
        if unit.id in self.lanes.may_skip:
            states.append(self._skipping(unit, skipped))
        return states

    def _skipping(self, unit: Unit, target: str) -> d.State:
        """It is skipped: a state that is left at once."""
        steps = [inner for step in unit.steps for inner in line_of(step.id, self.fallbacks)]
        values: dict[str, d.Json] = {"skipped": f"context.skipped + {len(steps)}"}
        if unit.id in self.lanes.recalled:
            values["skips"] = f"context.skips + ['{unit.id}']"
        return d.State(
            id=f"{unit.id}.skip",
            entry=(
                *(d.Record(step=step, status="skipped") for step in steps),
                d.Assign(values=values),
                *self._told(unit.id, "skipped"),
            ),
            transitions=(d.Transition(target=(target,)),),
        )

    def _told(self, unit: str, how: str) -> Actions:
        """What tells those who wait for a unit that it is settled."""
        told: list[d.AnyAction] = [d.Raise(event=f"step.{unit}.{how}")] if unit in self.lanes.heard else []
        if how == "skipped":
            # Unless a unit that waits for this one alone is skipped with it, nobody listens.
            told = told if unit in self.lanes.may_skip else []
        told += [d.Raise(event=f"join.{join}.{how}") for join in self.lanes.joined_by.get(unit, ())]
        return tuple(told)

    def _group(self, group: ParallelGroup, steps: Sequence[WorkflowStep], settled: tuple[str, Actions]) -> d.State:
        """Steps that run at once, each in a region of its own."""
        regions = []
        for step in steps:
            end = f"{step.id}.end"
            skip = f"{step.id}.skip" if self._may_skip(step) else ""
            states = self._step(step, "", (end, ()), skip, partial=group.on_failure == "partial")
            if skip:
                alone = Unit(step.id, (step,))
                states.append(self._skipping(alone, end))
            regions.append(
                d.State(id=f"lane.{step.id}", type="compound", states=(*states, d.State(id=end, type="final")))
            )
        target, told = settled
        transitions = [d.Transition(events=(f"done.state.{group.name}",), target=(target,), actions=told)]
        if group.deadline:
            transitions.append(d.Transition(delay=group.deadline, target=(target,), actions=told))
        return d.State(id=group.name, type="parallel", transitions=tuple(transitions), states=tuple(regions))

    # -- steps ---------------------------------------------------------------------------------------------------

    def _entry(self, unit: Unit) -> str:
        """The state that a unit begins with once nothing more is awaited."""
        if unit.group is not None:
            return f"{unit.id}.gate" if self._skip_test(unit) else unit.id
        return self._first(unit.steps[0], bool(self._skip_test(unit)))

    def _first(self, step: WorkflowStep, skip_test: bool = False) -> str:
        if skip_test or self.conditions[step.id]:
            return f"{step.id}.gate"
        return f"{step.id}.queued" if self.limit is not None else step.id

    def _skip_test(self, unit: Unit) -> str:
        """In a sequence: what holds if what a unit requires, and what is not just before it, was skipped."""
        requires = [required for required in unit.requires if required in self.lanes.recalled]
        if not self.lanes.sequential or not requires:
            return ""
        if unit.any and len(requires) < len(unit.requires):
            return ""
        asked = [f"'{required}' in context.skips" for required in requires]
        return f"!({(' && ' if unit.any else ' || ').join(asked)})"

    def _may_skip(self, step: WorkflowStep) -> bool:
        """Whether a condition or an error policy, its own or that of its fallback, can skip a step."""
        line = self._line(step)
        return bool(self.conditions[step.id]) or any(inner.on_error.action == "skip" for inner in line)

    def _line(self, step: WorkflowStep) -> list[WorkflowStep]:
        """A step and its fallbacks."""
        return [step, *(self.steps[inner] for inner in line_of(step.id, self.fallbacks)[1:])]

    def _step(
        self, step: WorkflowStep, skip_test: str, settled: tuple[str, Actions], skip: str, *, partial: bool = False
    ) -> list[d.State]:
        """The states of a step and of its fallbacks. `skip` is where it goes when it is skipped."""
        states = []
        tests = [
            *([skip_test] if skip_test else []),
            *(in_chart(text, self.results) for text in self.conditions[step.id]),
        ]
        if tests:
            run = f"{step.id}.queued" if self.limit is not None else step.id
            states.append(_gate(step.id, tests, run, skip))
        line = self._line(step)
        for index, inner in enumerate(line):
            rest = [other.id for other in line[index + 1 :]]
            if self.limit is not None:
                states.append(_queued(inner.id))
            done = self._completed(inner, line[0], rest)
            transitions = [
                d.Transition(events=(f"done.effect.{inner.id}",), target=(settled[0],), actions=(*done, *settled[1])),
                self._failure(inner, settled, skip, partial=partial),
            ]
            states.append(
                d.State(
                    id=inner.id,
                    description=inner.description or inner.name,
                    meta={"step": inner.id},
                    entry=(run_step(self.workflow, inner), d.Record(step=inner.id, status="running")),
                    exit=self._left(inner),
                    transitions=tuple(transitions),
                )
            )
        return states

    def _left(self, step: WorkflowStep) -> Actions:
        """A step that runs is left because it was done, has failed or is cancelled; who knows better says so after."""
        actions: list[d.AnyAction] = [d.Record(step=step.id, status="cancelled")]
        if step.compensate_failure and step.id in self.undone:
            actions.append(d.Assign(values={"undo": f"context.undo + ['{step.id}']"}))
        if self.limit is not None:
            actions += _FREE
        return tuple(actions)

    def _completed(self, step: WorkflowStep, first: WorkflowStep, unused: Sequence[str]) -> Actions:
        """What a step's completion says. `first` is the step in whose place it was done, `unused` are its fallbacks."""
        values: dict[str, d.Json] = {"completed": "context.completed + 1"}
        if unused:
            values["skipped"] = f"context.skipped + {len(unused)}"
        for named in dict.fromkeys((step.id, first.id)):
            if named in self.results:
                values[self.results[named]] = "event.data"
        if step.id in self.undone and not step.compensate_failure:
            values["undo"] = f"context.undo + ['{step.id}']"
        return (
            d.Record(step=step.id, status="completed"),
            *(d.Record(step=other, status="skipped") for other in unused),
            d.Assign(values=values),
        )

    def _failure(self, step: WorkflowStep, settled: tuple[str, Actions], skip: str, *, partial: bool) -> d.Transition:
        """What a step's failure leads to, by its policy."""
        events, action = (f"error.effect.{step.id}",), step.on_error.action
        if action == "skip":
            return d.Transition(events=events, target=(skip,))
        failed: Actions = (
            d.Record(step=step.id, status="failed"),
            d.Assign(values={"failed": "context.failed + 1"}),
        )
        if action == "fallback":
            return d.Transition(
                events=events, target=(self._first(self.steps[step.on_error.fallback]),), actions=failed
            )
        if not step.critical:
            failed = (*failed, d.Log(expr=FAILED, label="warning"))
        if partial or action == "continue" or not step.critical:
            return d.Transition(events=events, target=(settled[0],), actions=(*failed, *settled[1]))
        why = rollback.why(self.undone, FAILED, "failed")
        return d.Transition(events=events, target=(rollback.target(self.undone, "failed"),), actions=(*failed, *why))


def run_step(workflow: WorkflowDefinition, step: WorkflowStep) -> d.RunStep:
    """The action that has a step performed, until its state is left."""
    by = workflow.performer(step)
    return d.RunStep(step=step.id, by=by, retry=retry_of(step), timeout=step.timeout, cancel="on_exit")


def _gate(name: str, tests: Sequence[str], run: str, skip: str) -> d.State:
    """Asks for the condition in an action, not as a guard: one that can't be evaluated is no "no"."""
    event = f"gate.{name}"
    texts = " && ".join(f"({text})" for text in tests)
    return d.State(
        id=f"{name}.gate",
        entry=(d.Raise(event=event, data=f"({texts}) ? true : false"),),
        transitions=(
            d.Transition(events=(event,), guard="event.data == true", target=(run,)),
            d.Transition(events=(event,), target=(skip,)),
        ),
    )


def _go(event: str, onward: tuple[str, Actions]) -> d.Transition:
    return d.Transition(events=(event,), target=(onward[0],), actions=onward[1])


def _queued(step: str) -> d.State:
    """Waits for a free place. Internal events come one at a time, so no two take the same; the first to ask is
    first."""
    return d.State(
        id=f"{step}.queued",
        entry=(d.Raise(event=f"ask.{step}"),),
        transitions=(
            d.Transition(
                events=(f"ask.{step}",),
                guard="context.free > 0",
                target=(step,),
                actions=(d.Assign(values={"free": "context.free - 1"}),),
            ),
            d.Transition(events=(f"ask.{step}",), actions=(d.Assign(values={"queue": f"context.queue + ['{step}']"}),)),
            d.Transition(
                events=(f"turn.{step}",),
                guard=f"!('{step}' in context.queue)",
                target=(step,),
            ),
        ),
    )


_FREE: Actions = (
    d.If(
        branches=(
            d.Branch(
                guard="size(context.queue) > 0",
                actions=(
                    d.Send(eventexpr="'turn.' + context.queue[0]", target="#_internal"),
                    d.Assign(values={"queue": "context.queue.filter(step, step != context.queue[0])"}),
                ),
            ),
        ),
        otherwise=(d.Assign(values={"free": "context.free + 1"}),),
    ),
)
"""A place is free: the first who waits for one gets it."""
