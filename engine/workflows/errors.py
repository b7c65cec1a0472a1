"""What an orchestrator and the steps of its workflows refuse, beside `InvalidWorkflow`, for a faulty definition.

Those that are `PermanentError`s end a step as failed at once: trying again could not help.
"""

from __future__ import annotations

from typing import ClassVar, Self

from statewright.engine.calls import PermanentError
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError
from statewright.statecharts.errors import StatewrightError


class WorkflowExists(AlreadyExistsError):
    """A workflow of this id and version is there with other content."""


class WorkflowNotFound(NotFoundError):
    """No workflow has this id (and version), or it was unregistered, or it is a chart that is none."""


class ExecutionNotFound(NotFoundError):
    """No instance has this id, or it is not one of a workflow."""

    @classmethod
    def like(cls, error: NotFoundError) -> Self:
        """What is said of an instance, said of an execution."""
        return cls(str(error).replace("no instance", "no execution"))

    @classmethod
    def of_chart(cls, instance_id: str, chart: str) -> Self:
        """There is an instance, but of a chart that nobody wrote as steps."""
        return cls(f"'{instance_id}' is an instance of chart '{chart}', not of a workflow of steps")


class InvalidState(InvalidError):
    """The execution is not in a state in which this can be done; the message says in which it is."""


class ExecutionTimeout(StatewrightError, TimeoutError):
    """An execution has not ended in the time that its caller waits. It goes on."""

    code: ClassVar[str] = "unavailable"


class InvalidParameters(PermanentError):
    """The parameters of a step can't be computed, or are not what the function takes."""


class DependencyNotSatisfied(InvalidParameters):
    """A step's parameters need the data of a step that has none: it was skipped, has failed, or has not run."""


class PluginNotFound(PermanentError):
    """No plugin of this name, or it has no such method."""

    code: ClassVar[str] = "not_found"


class ServiceNotFound(PermanentError):
    """No service of this name, or it has no such method."""

    code: ClassVar[str] = "not_found"


class FunctionNotFound(PermanentError):
    """No function of this name is registered."""

    code: ClassVar[str] = "not_found"
