"""Random workflows, and a small model of what must happen in them, written from the rules and not from the chart.

The model knows nothing of lanes, joins or states: it looks at all steps again after each result.
"""

from __future__ import annotations

from random import Random
from typing import Any

from statewright.statecharts.workflows import Workflow

SETTLED = ("completed", "failed", "skipped", "cancelled")


def perform(call: object) -> None:
    """Performs nothing; steps need somebody who does."""


def random_workflow(lots: Random) -> dict[str, Any]:
    """The written form of a workflow with up to twelve steps."""
    count = lots.randint(1, 12)
    mode = lots.choice(["sequential", "parallel", "parallel", "conditional", "pipeline"])
    names = [f"s{number}" for number in range(count)]
    steps = []
    for number, name in enumerate(names):
        step: dict[str, Any] = {"id": name, "function": "perform"}
        earlier = names[:number]
        needed = lots.sample(earlier, min(len(earlier), lots.choice([0, 0, 1, 1, 1, 2, 3])))
        if needed:
            step["dependencies"] = needed
        if len(needed) > 1 and lots.random() < 0.3:
            step["join"] = "any"
        if lots.random() < 0.25:
            step["condition"] = f"input.{name}"
        if lots.random() < 0.3:
            step["on_error"] = lots.choice(["skip", "continue", "retry"])
        if lots.random() < 0.1:
            step["critical"] = False
        if lots.random() < 0.4:
            step["rollback"] = {"id": f"undo_{name}", "function": "perform"}
            step["compensate_failure"] = lots.random() < 0.3
        steps.append(step)
    tree: dict[str, Any] = {"id": "random", "mode": mode, "steps": steps}
    if lots.random() < 0.3:
        tree["concurrency"] = lots.randint(1, 3)
    if lots.random() < 0.4:
        _add_branch(lots, tree, names)
    if lots.random() < 0.4:
        _add_group(lots, tree, names)
    if lots.random() < 0.3:
        target = lots.choice(steps)
        target["on_error"] = {"fallback": "spare"}
        steps.append({"id": "spare", "function": "perform", "on_error": lots.choice(["abort", "continue"])})
    return tree


def _add_branch(lots: Random, tree: dict[str, Any], names: list[str]) -> None:
    if len(names) < 3:
        return
    decides = lots.randrange(len(names) - 2)
    later = names[decides + 1 :]
    lots.shuffle(later)
    cut = lots.randint(0, min(2, len(later) - 1))
    then, otherwise = later[: cut + 1], later[cut + 1 : cut + 1 + lots.randint(0, 2)]
    tree["branches"] = [{"step": names[decides], "condition": "input.branch", "then": then, "otherwise": otherwise}]


def _add_group(lots: Random, tree: dict[str, Any], names: list[str]) -> None:
    """Of steps beside each other, none of which depends on another, directly or through others."""
    first = lots.randrange(len(names))
    members = names[first : first + lots.randint(2, 3)]
    if len(members) < 2:
        return
    before = set(names[:first])
    for step in tree["steps"][first : first + len(members)]:
        step["dependencies"] = [name for name in step.get("dependencies", []) if name in before]
        step.pop("join", None)
    inside = set(members)
    for branch in tree.get("branches", []):
        if branch["step"] in inside and inside.intersection((*branch["then"], *branch["otherwise"])):
            return
    group = {"name": "group", "steps": members, "on_failure": lots.choice(["cancel", "partial"])}
    after = names[first + len(members) :]
    if after and lots.random() < 0.7:
        group["merge"] = lots.choice(after)
    tree["groups"] = [group]


class Model:
    """What must happen. `status` of each step that was mentioned so far; `running`: those under way."""

    def __init__(self, workflow: Workflow, given: dict[str, bool]) -> None:
        self.workflow = workflow
        self.given = given
        self.steps = {step.id: step for step in workflow.steps}
        self.spare_of = {step.on_error.fallback: step.id for step in workflow.steps if step.on_error.fallback}
        self.order = [step.id for step in workflow.steps if step.id not in self.spare_of]
        self.group = workflow.groups[0] if workflow.groups else None
        self.status: dict[str, str] = {}
        self.undo: list[str] = []
        self.ending = ""
        self.blocks = {name: self._block(name) for name in self.order}
        self.branch_needs: dict[str, list[str]] = {name: [] for name in self.order}
        self.conditions: dict[str, list[bool]] = {name: [] for name in self.order}
        for step in workflow.steps:
            if step.condition and step.id in self.conditions:
                self.conditions[step.id].append(given[step.id])
        for branch in workflow.branches:
            for name, wanted in [*((n, True) for n in branch.then), *((n, False) for n in branch.otherwise)]:
                self.branch_needs[name].append(branch.step)
                self.conditions[name].append(given["branch"] is wanted)
        self.sides: dict[str, set[bool]] = {}
        self.needs: dict[str, list[str]] = {}
        self.any: dict[str, bool] = {}
        for name in self._blocks_in_order():
            self._wire(name)

    def _block(self, name: str) -> str:
        return "group" if self.group and name in self.group.steps else name

    def members(self, block: str) -> list[str]:
        return [name for name in self.order if self.blocks[name] == block]

    def all_blocks(self) -> list[str]:
        return list(dict.fromkeys(self.blocks[name] for name in self.order))

    def _direct(self, block: str) -> list[str]:
        needed = [
            self.blocks[other]
            for name in self.members(block)
            for other in (*self.steps[name].dependencies, *self.branch_needs[name])
        ]
        if self.group and self.group.merge in self.members(block):
            needed.append("group")
        return [other for other in dict.fromkeys(needed) if other != block]

    def _blocks_in_order(self) -> list[str]:
        done: list[str] = []
        while len(done) < len(self.all_blocks()):
            done += [b for b in self.all_blocks() if b not in done and set(self._direct(b)) <= set(done)][:1]
        return done

    def _wire(self, block: str) -> None:
        direct = self.needs[block] = self._direct(block)
        is_any = block != "group" and self.steps[block].join == "any"
        met: set[bool] = set().union(*(self.sides[other] for other in direct)) if direct else set()
        if self.workflow.mode == "conditional" and met == {True, False}:
            is_any, met = True, set()
        self.any[block] = is_any
        own = {
            side
            for branch in self.workflow.branches
            for name in self.members(block)
            for side, names in ((True, branch.then), (False, branch.otherwise))
            if name in names
        }
        self.sides[block] = met | own

    # -- what happens --------------------------------------------------------------------------------------------

    def settled(self, block: str) -> str:
        """ "" while it is not; "skipped" or "done"."""
        statuses = [self._outcome(name) for name in self.members(block)]
        if "" in statuses:
            return ""
        if block == "group":
            return "skipped" if self.status.get("group") == "skipped" else "done"
        return statuses[0]

    def _outcome(self, name: str) -> str:
        while True:
            status = self.status.get(name, "")
            if status == "failed" and self.steps[name].on_error.fallback:
                name = self.steps[name].on_error.fallback
                continue
            return {"completed": "done", "failed": "done", "skipped": "skipped"}.get(status, "")

    def ready(self) -> list[str]:
        """Steps that may run now and don't; what is to be skipped is skipped on the way."""
        while True:
            found, skipped = self._look()
            if not skipped:
                return found
            for name in skipped:
                self._skip(name)

    def _look(self) -> tuple[list[str], list[str]]:
        found: list[str] = []
        skipped: list[str] = []
        before = True
        for block in self.all_blocks():
            if self.workflow.mode in ("sequential", "pipeline") and not before:
                break
            before = bool(self.settled(block))
            waiting = [name for name in self.members(block) if name not in self.status]
            verdict = self._verdict(block)
            if verdict == "skip":
                if block == "group" and "group" not in self.status:
                    self.status["group"] = "skipped"
                skipped += waiting
            elif verdict == "run":
                skipped += [name for name in waiting if not all(self.conditions[name])]
                found += [name for name in waiting if all(self.conditions[name])]
        for spare, name in self.spare_of.items():
            if self.status.get(name) == "failed" and spare not in self.status:
                found.append(spare)
        return found, skipped

    def _verdict(self, block: str) -> str:
        outcomes = [self.settled(other) for other in self.needs[block]]
        if self.any[block]:
            if not all(outcomes):
                return "wait"
            return "run" if "done" in outcomes or not outcomes else "skip"
        if "skipped" in outcomes:
            return "skip"
        return "run" if all(outcomes) else "wait"

    def _skip(self, name: str) -> None:
        self.status[name] = "skipped"
        self._spare_unused(name)

    def _spare_unused(self, name: str) -> None:
        if spare := self.steps[name].on_error.fallback:
            self.status[spare] = "skipped"

    def start(self, name: str) -> None:
        self.status[name] = "running"

    @property
    def running(self) -> list[str]:
        return [name for name, status in self.status.items() if status == "running"]

    def done(self, name: str) -> None:
        self.status[name] = "completed"
        self._spare_unused(name)
        if self.steps[name].rollback:
            self.undo.append(name)

    def fail(self, name: str) -> None:
        step = self.steps[name]
        self.status[name] = "failed"
        if step.rollback and step.compensate_failure:
            self.undo.append(name)
        partial = self.group is not None and name in self.group.steps and self.group.on_failure == "partial"
        origin = self.spare_of.get(name, "")
        partial |= bool(origin and self.group and origin in self.group.steps and self.group.on_failure == "partial")
        if step.on_error.action == "skip":
            self._skip(name)
        elif not (step.on_error.action in ("continue", "fallback") or not step.critical or partial):
            self.abort()

    def abort(self) -> None:
        """Leaves all that runs, from the last in the document on."""
        self.ending = "failed"
        for name in self.running:
            self.status[name] = "cancelled"

    @property
    def is_over(self) -> bool:
        return all(self.settled(block) for block in self.all_blocks()) and not self.running
