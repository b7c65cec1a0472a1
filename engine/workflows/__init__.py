"""Runs workflows of steps: performs their steps, and is the front door to their executions."""

from statewright.engine.workflows.calls import Caller, StepCall
from statewright.engine.workflows.checkpoints import CheckpointExists, CheckpointNotFound
from statewright.engine.workflows.errors import (
    DependencyNotSatisfied,
    ExecutionNotFound,
    ExecutionTimeout,
    FunctionNotFound,
    InvalidParameters,
    InvalidState,
    PluginNotFound,
    ServiceNotFound,
    WorkflowExists,
    WorkflowNotFound,
)
from statewright.engine.workflows.executions import ExecutionMetrics, ExecutionStatus
from statewright.engine.workflows.orchestrator import Orchestrator
from statewright.engine.workflows.results import StepResult
from statewright.engine.workflows.transactions import TransactionNotFound, TransactionStatus

__all__ = [
    "Caller",
    "CheckpointExists",
    "CheckpointNotFound",
    "DependencyNotSatisfied",
    "ExecutionMetrics",
    "ExecutionNotFound",
    "ExecutionStatus",
    "ExecutionTimeout",
    "FunctionNotFound",
    "InvalidParameters",
    "InvalidState",
    "Orchestrator",
    "PluginNotFound",
    "ServiceNotFound",
    "StepCall",
    "StepResult",
    "TransactionNotFound",
    "TransactionStatus",
    "WorkflowExists",
    "WorkflowNotFound",
]
