"""One service: its instances, who of them gets a call, its circuit, what is measured of it.

Everything but the performing itself is decided between two awaits, so the state needs no lock.
Invariants: a call is admitted by the circuit once, however many instances are tried for it, and its end is told to the
circuit once. Another instance is tried only where nobody can have received the call. What says nothing about the
service (a cancelled call, wrong parameters, a refusal of the circuit's own) is not counted against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from statewright.adapters.services.balancing import Strategy, Turn, is_overloaded
from statewright.adapters.services.circuit import (
    Circuit,
    CircuitPolicy,
    admitted,
    failed,
    released,
    state_at,
    succeeded,
)
from statewright.adapters.services.events import ServiceEventKind
from statewright.adapters.services.measures import CallMeasure, Outcome, ServiceMetrics, Uptime
from statewright.adapters.services.members import Member
from statewright.adapters.services.selection import ServiceInfo, Tier
from statewright.engine.calls import EffectCancelled, PermanentError, RetryLater
from statewright.engine.clock import Clock
from statewright.engine.errors import UnavailableError
from statewright.engine.services import NobodyListens
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters, ServiceNotFound
from statewright.statecharts.facts import Json

Tell = Callable[[ServiceEventKind, str, str, str], None]
"""(kind, service, instance, detail): an event."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is said of a service, in code or by its instances."""

    name: str
    version: str = ""
    description: str = ""
    interfaces: frozenset[str] = frozenset()
    metadata: dict[str, Json] = field(default_factory=dict)
    priority: int = 0
    tier: Tier = "standard"


class Service:
    """See the module. `group` is the queue group on the bus, None without one."""

    def __init__(
        self,
        profile: Profile,
        *,
        strategy: Strategy,
        circuit: CircuitPolicy,
        clock: Clock,
        tell: Tell,
        group: Member | None = None,
    ) -> None:
        self.profile = profile
        self.members: dict[str, Member] = {}
        self.group = group
        self.is_registered = False
        """Whether code has registered it; else it is here because it was announced or asked for."""
        self._strategy = strategy
        self._policy = circuit
        self._clock = clock
        self._tell = tell
        self._turn = Turn()
        self._circuit = Circuit()
        self._openings = 0
        self._rejected = 0
        self._overloads = 0
        self._measure = CallMeasure()
        self._uptime = Uptime(clock.now())
        self.refresh()

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def call(self, call: StepCall) -> Json:
        """Perform it at the instance whose turn it is. Raises `RetryLater` while the circuit is open, `ServiceNotFound`
        for a method that isn't there, `UnavailableError` without an instance, and what the instance raises."""
        self._check_method(call.method)
        generation = self._admit()
        began_at = self._clock.now()
        self._measure.begin()
        outcome: Outcome = "failed"
        try:
            result = await self._ask(call)
            outcome = "succeeded"
            return result
        except BaseException as error:
            outcome = self._judge(error, call)
            raise
        finally:
            self._measure.end(outcome, self._clock.now() - began_at)
            self._conclude(outcome, generation)

    def _check_method(self, method: str) -> None:
        known = self.methods
        if known and method not in known:
            has = ", ".join(sorted(known))
            raise ServiceNotFound(f"service '{self.profile.name}' has no method '{method}'; it has {has}")

    async def _ask(self, call: StepCall) -> Json:
        tried: set[str] = set()
        while (member := self._choose(call.method, tried)) is not None:
            tried.add(member.id)
            try:
                return await self._perform(member, call)
            except NobodyListens as error:
                self.lose(member, str(error))
        if self.group is not None and self.group.id not in tried:
            return await self._perform(self.group, call)
        raise UnavailableError(f"no instance of service '{self.profile.name}' is there for '{call.method}' now")

    def _choose(self, method: str, tried: set[str]) -> Member | None:
        alive = [member for member in self.members.values() if member.is_alive]
        if self.group is not None and any(not member.is_addressable for member in alive):
            # The queue group reaches those that can't be asked by themselves, and the other remote ones just as well.
            alive = [member for member in alive if not member.is_remote] + [self.group]
        able = [
            member
            for member in alive
            if member.id not in tried and (not member.target.methods or method in member.target.methods)
        ]
        free = [member for member in able if not member.is_overloaded] or able
        if not free:
            return None
        chosen, self._turn = self._strategy([member.candidate for member in free], self._turn)
        return next(member for member in free if member.id == chosen)

    async def _perform(self, member: Member, call: StepCall) -> Json:
        began_at = self._clock.now()
        member.measure.begin()
        self.refresh()
        outcome: Outcome = "failed"
        try:
            result = await member.target.perform(call)
            outcome = "succeeded"
        except NobodyListens:
            outcome = "unheard"
            if member is self.group:
                self.lose(member, "nobody listens")
            raise
        except BaseException as error:
            outcome = self._judge(error, call)
            raise
        finally:
            member.measure.end(outcome, self._clock.now() - began_at)
            self.refresh()
        if member is self.group:
            self.find(member)
        return result

    def _judge(self, error: BaseException, call: StepCall) -> Outcome:
        if isinstance(error, InvalidParameters | ServiceNotFound):
            return "unheard"
        if isinstance(error, PermanentError | RetryLater):
            return "refused"  # Both are answers: of somebody who is there, and knows what can be done.
        if isinstance(error, Exception) and not isinstance(error, EffectCancelled):
            return "failed"
        deadline = call.deadline_ns  # Cancelled: because its time was up, or because nobody needs it any more?
        return "failed" if deadline and self._clock.now() >= deadline else "unheard"

    # -- the circuit ---------------------------------------------------------------------------------------------------

    def _admit(self) -> int:
        circuit, wait_s = admitted(self._circuit, self._policy, self._clock.now())
        self._turn_circuit(circuit)
        if wait_s is None:
            return circuit.generation
        self._rejected += 1
        why = f"the circuit of service '{self.profile.name}' is {circuit.state}: try again in {wait_s:.3g} s"
        raise RetryLater(wait_s, why, counted=False)

    def _conclude(self, outcome: Outcome, generation: int) -> None:
        now = self._clock.now()
        if outcome == "failed":
            circuit = failed(self._circuit, self._policy, generation, now)
        elif outcome == "unheard":
            circuit = released(self._circuit, generation)
        else:
            circuit = succeeded(self._circuit, self._policy, generation, now)
        self._turn_circuit(circuit)

    def _turn_circuit(self, circuit: Circuit) -> None:
        before, self._circuit = self._circuit, circuit
        if before.state == circuit.state:
            return
        if circuit.state == "open":
            self._openings += 1
            detail = f"{circuit.failures} failures in a row, for {self._policy.open_for_s:g} s"
            self._tell("circuit_opened", self.profile.name, "", detail)
        else:
            kind: ServiceEventKind = "circuit_closed" if circuit.state == "closed" else "circuit_half_opened"
            self._tell(kind, self.profile.name, "", "")

    # -- instances -----------------------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        self.members[member.id] = member
        self._tell("instance_added", self.profile.name, member.id, "")
        self.refresh()

    def remove(self, member: Member, detail: str) -> None:
        """It is gone for good."""
        if self.members.pop(member.id, None) is not None:
            if member.is_alive:
                self._tell("instance_lost", self.profile.name, member.id, detail)
            self.refresh()

    def lose(self, member: Member, detail: str) -> None:
        """It gets no calls until it is found again."""
        if member.is_alive:
            member.is_alive = False
            if member is not self.group:
                self._tell("instance_lost", self.profile.name, member.id, detail)
            self.refresh()

    def find(self, member: Member) -> None:
        """It is well."""
        member.misses = 0
        if not member.is_alive:
            member.is_alive = True
            if member is not self.group:
                self._tell("instance_returned", self.profile.name, member.id, "")
            self.refresh()

    def refresh(self) -> None:
        """Look whether loads or availability have passed a mark, and tell."""
        name = self.profile.name
        for member in self.members.values():
            now_overloaded = is_overloaded(load := member.load, member.is_overloaded)
            if now_overloaded != member.is_overloaded:
                member.is_overloaded = now_overloaded
                self._overloads += now_overloaded
                kind: ServiceEventKind = "instance_overloaded" if now_overloaded else "instance_relieved"
                self._tell(kind, name, member.id, "" if load is None else f"load {load:.0%}")
        is_available = self._is_there()
        if is_available != self._uptime.is_up:
            self._uptime.turn(is_available, self._clock.now())
            self._tell("service_available" if is_available else "service_unavailable", name, "", "")

    def _is_there(self) -> bool:
        if any(member.is_alive for member in self.members.values()):
            return True
        # Without announcements nothing is known of those behind the queue group but how the last call went.
        return self.group is not None and self.group.is_alive and not any(m.is_remote for m in self.members.values())

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def methods(self) -> frozenset[str]:
        """All methods of a service whose instances are all in this process; else empty: those elsewhere may have more
        than they announce."""
        if self.group is not None or not self.members:
            return frozenset()
        return frozenset().union(*(member.target.methods for member in self.members.values()))

    @property
    def open_for_s(self) -> float:
        """In how many seconds an open circuit lets a trial through; 0 if it isn't open."""
        if self._circuit.state != "open":
            return 0.0
        return admitted(self._circuit, self._policy, self._clock.now())[1] or 0.0

    @property
    def info(self) -> ServiceInfo:
        now, profile = self._clock.now(), self.profile
        alive = [member for member in self.members.values() if member.is_alive]
        return ServiceInfo(
            name=profile.name,
            version=profile.version,
            description=profile.description,
            interfaces=profile.interfaces,
            methods=frozenset().union(*(member.target.methods for member in self.members.values())),
            metadata=profile.metadata,
            priority=profile.priority,
            tier=profile.tier,
            is_available=self._uptime.is_up,
            is_overloaded=bool(alive) and all(member.is_overloaded for member in alive),
            circuit=state_at(self._circuit, self._policy, now),
            uptime=self._uptime.share(now),
            latency_ms=self._measure.latency_ms,
            instances=len(alive),
        )

    @property
    def metrics(self) -> ServiceMetrics:
        measure, now = self._measure, self._clock.now()
        return ServiceMetrics(
            service=self.profile.name,
            calls=measure.calls,
            failures=measure.failures,
            refusals=measure.refusals,
            rejected=self._rejected,
            in_flight=measure.in_flight,
            latency_ms=measure.latency_ms,
            uptime=self._uptime.share(now),
            circuit=self._circuit.state,
            circuit_openings=self._openings,
            overloads=self._overloads,
            instances=tuple(member.metrics for member in self.members.values()),
        )
