"""XState v5 machine configurations (https://stately.ai/docs/xstate), as Stately exports them, read into the model.

What XState says in JavaScript (guards, assigns, delays, actors) a configuration only names; `from_xstate` is given what
the names mean. What cannot be carried over is refused by name.
"""

from statewright.statecharts.xstate.door import build, from_xstate, is_xstate
from statewright.statecharts.xstate.names import Meanings

__all__ = ["Meanings", "build", "from_xstate", "is_xstate"]
