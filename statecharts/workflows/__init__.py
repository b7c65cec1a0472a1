"""Workflows of steps, which compile to ordinary charts. Pure, as the room is.

`Workflow` and `WorkflowStep` write one in Python, `load_workflow` reads one from a file.
"""

from statewright.statecharts.workflows.errors import InvalidWorkflow
from statewright.statecharts.workflows.model import (
    Branch,
    OnError,
    ParallelGroup,
    WorkflowDefinition,
    WorkflowStep,
)
from statewright.statecharts.workflows.workflow import Workflow, load_workflow

__all__ = [
    "Branch",
    "InvalidWorkflow",
    "OnError",
    "ParallelGroup",
    "Workflow",
    "WorkflowDefinition",
    "WorkflowStep",
    "load_workflow",
]
