"""Facts as they are published: all active states in each of them, also where the log only says which have changed.

A reader of the stream need not have read what came before. Invariant: what is remembered is as of a sequence; after a
gap the log is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from statewright.engine.events import AnyFact, Fact, Macrostep
from statewright.engine.instance import configuration_after

INSTANCES_MAX = 1_000
"""Of how many instances with many active states these are remembered."""

Ask = Callable[[str, int], Awaitable[tuple[str, ...] | None]]
"""(instance, sequence) -> the active states as of then, from the log; None if that has nothing of it any more."""


class Configurations:
    """Remembers where the instances are that facts with changes are about."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: OrderedDict[str, tuple[int, tuple[str, ...]]] = OrderedDict()

    async def whole(self, fact: AnyFact) -> Fact:
        """The fact with all active states. Facts of one instance come in order, some of them perhaps again."""
        if not isinstance(fact, Macrostep) or fact.configuration_changes is None:
            self._follow(fact)
            return fact
        known = self._known.get(fact.instance_id)
        if known is not None and known[0] == fact.sequence - 1:
            configuration = configuration_after(known[1], fact)
        else:
            asked = await self._ask(fact.instance_id, fact.sequence)
            if asked is None:
                return fact
            configuration = asked
        self._known[fact.instance_id] = (fact.sequence, configuration)
        self._known.move_to_end(fact.instance_id)
        if len(self._known) > INSTANCES_MAX:
            self._known.popitem(last=False)
        return replace(fact, configuration=configuration, configuration_changes=None)

    def _follow(self, fact: Fact) -> None:
        """Keep up with a fact that needs no completing."""
        known = self._known.pop(fact.instance_id, None)
        if known is not None and known[0] == fact.sequence - 1 and not isinstance(fact, Macrostep):
            self._known[fact.instance_id] = (fact.sequence, known[1])
