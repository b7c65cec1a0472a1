"""What is wrong with a workflow's definition."""

from __future__ import annotations

from collections.abc import Iterable

from statewright.statecharts.errors import ChartError, Fault, StatewrightError


class InvalidWorkflow(ChartError):
    """A workflow was refused. `faults` holds all that was found, each with its place (and line); `workflow` names
    it."""

    def __init__(self, faults: Iterable[Fault], workflow: str = "") -> None:
        super().__init__(faults, workflow)
        self.workflow = workflow
        count = len(self.faults)
        counted = f"{count} fault{'s' if count != 1 else ''}"
        head = f"workflow {workflow!r} has {counted}" if workflow else counted
        StatewrightError.__init__(self, "; ".join([head, *(str(fault) for fault in self.faults)]))
