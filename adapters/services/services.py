"""The service layer: which services there are, in this process and on the bus, and the `Caller` that asks them.

    services = Services()
    services.register("parser", Parser(), interfaces=["document-parser"])
    async with services: ...            # looks after health and discovery from here on

Invariants: a service in this process is known by being registered; one on the bus may be there without being known, so
with a bus a name that nobody announces is asked for all the same, and silence is never taken for "does not exist".
A bus that is out of reach changes nothing that is known of services.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, get_args

import msgspec

from statewright.adapters.services.balancing import STRATEGIES, Strategy, StrategyName
from statewright.adapters.services.circuit import CircuitPolicy
from statewright.adapters.services.discovery import Discovery
from statewright.adapters.services.events import Listener, Listeners, ServiceEvent, ServiceEventKind
from statewright.adapters.services.measures import ServiceMetrics
from statewright.adapters.services.members import HEALTH_TIMEOUT_S, Health, Load, LocalTarget, Member, RemoteTarget
from statewright.adapters.services.requests import criteria_of, from_effect
from statewright.adapters.services.selection import Criteria, ServiceInfo, Tier, best, lacks
from statewright.adapters.services.service import Profile, Service
from statewright.engine.calls import EffectCall, RetryLater
from statewright.engine.clock import SECOND_NS, Clock, SystemClock
from statewright.engine.errors import AlreadyExistsError, InvalidError, UnavailableError
from statewright.engine.ids import check_id
from statewright.engine.services import ServiceBus
from statewright.engine.tasks import end
from statewright.engine.threads import Threads
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import ServiceNotFound
from statewright.statecharts.facts import Json

CHECK_EVERY_S = 5.0
"""How often instances are asked for their health, and the bus for who is there."""
MISSES_MAX = 2
"""After how many failed checks in a row an instance is dead."""
GROUP = "*"
"""The id of the queue group among a service's instances."""

_LOG = logging.getLogger("statewright.services")


class Services:
    """Registers, finds, selects and calls services. `call` makes it the `Caller` of workflow steps; `perform` performs
    the `call` effects of charts. An async context manager: inside, health is checked every `check_every_s`."""

    def __init__(
        self,
        bus: ServiceBus | None = None,
        *,
        clock: Clock | None = None,
        strategy: StrategyName | Strategy = "round_robin",
        circuit: CircuitPolicy | None = None,
        check_every_s: float = CHECK_EVERY_S,
        misses_max: int = MISSES_MAX,
        health_timeout_s: float = HEALTH_TIMEOUT_S,
    ) -> None:
        """`strategy` and `circuit` are those of services that don't say otherwise. Raises `InvalidError`."""
        self._bus = bus
        self._clock = clock or SystemClock()
        self._strategy = _strategy(strategy)
        self._circuit = circuit or CircuitPolicy()
        self._check_every_ns = round(check_every_s * SECOND_NS)
        self._misses_max = misses_max
        self._health_timeout_s = health_timeout_s
        self._services: dict[str, Service] = {}
        self._listeners = Listeners()
        self._threads = Threads()
        self._checking: asyncio.Task[None] | None = None
        self._discovery = None if bus is None else Discovery(bus, self._service_named, misses_max)

    async def __aenter__(self) -> Self:
        await self.check()
        self._checking = asyncio.create_task(self._check_for_ever(), name="service health")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Check no more, and wait a bounded time for plain functions that are running. The bus stays open."""
        await end(self._checking)
        self._checking = None
        await self._threads.close()

    # -- the registry --------------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        target: object,
        *,
        instance: str = "1",
        version: str = "",
        description: str = "",
        interfaces: Iterable[str] = (),
        metadata: Mapping[str, Json] | None = None,
        priority: int = 0,
        tier: Tier = "standard",
        strategy: StrategyName | Strategy | None = None,
        circuit: CircuitPolicy | None = None,
        weight: int = 1,
        capacity: int = 0,
        health: Health | None = None,
        load: Load | None = None,
    ) -> None:
        """A service in this process, with its first instance (see `add_instance` for the last four). `target`: an
        object, whose public methods it offers, a module, or a mapping of names to callables. Methods get a step's
        parameters by name, as functions of steps do. Raises `AlreadyExistsError`, `InvalidError`."""
        local = LocalTarget(name, target, self._threads)
        member = Member(check_id("an instance id", instance), local, weight, capacity, health, load)
        profile = _profile(name, version, description, interfaces, metadata, priority, tier)
        self._register(profile, strategy, circuit, remote=False).add(member)

    def register_remote(
        self,
        name: str,
        *,
        version: str = "",
        description: str = "",
        interfaces: Iterable[str] = (),
        metadata: Mapping[str, Json] | None = None,
        priority: int = 0,
        tier: Tier = "standard",
        strategy: StrategyName | Strategy | None = None,
        circuit: CircuitPolicy | None = None,
    ) -> None:
        """A service on the bus. Not needed for one that announces itself; what is said here then counts where the
        announcement says nothing. Raises `AlreadyExistsError`, `InvalidError` (without a bus)."""
        if self._bus is None:
            raise InvalidError(f"expected a bus for the remote service '{name}': Services(bus) has none")
        profile = _profile(name, version, description, interfaces, metadata, priority, tier)
        self._register(profile, strategy, circuit, remote=True)

    def unregister(self, name: str) -> None:
        """Forget a service; calls under way go on. One that announces itself is found again. Raises
        `ServiceNotFound`."""
        service = self._known(name)
        del self._services[name]
        for member in tuple(service.members.values()):
            service.remove(member, "unregistered")
        self._tell("service_unregistered", name, "", "")

    def add_instance(
        self,
        name: str,
        target: object,
        *,
        instance: str,
        weight: int = 1,
        capacity: int = 0,
        health: Health | None = None,
        load: Load | None = None,
    ) -> None:
        """One more instance of a service in this process. `weight` is its share in weighted round robin; `capacity`
        how many calls at once are a load of 1 (not a limit; 0: calls say nothing); `health` tells whether it is well;
        `load` (quick, 0..1) how busy. Raises `ServiceNotFound`, `AlreadyExistsError`, `InvalidError`."""
        service = self._known(name)
        if instance in service.members:
            raise AlreadyExistsError(f"service '{name}' has an instance '{instance}' already")
        local = LocalTarget(name, target, self._threads)
        service.add(Member(check_id("an instance id", instance), local, weight, capacity, health, load))

    def remove_instance(self, name: str, instance: str) -> None:
        """It gets no more calls; those under way go on. Raises `ServiceNotFound`, `InvalidError`."""
        service = self._known(name)
        member = service.members.get(instance)
        if member is None:
            has = ", ".join(service.members) or "none"
            raise InvalidError(f"expected an instance of service '{name}', got '{instance}'; it has {has}")
        service.remove(member, "removed")

    def list_services(self, interface: str = "") -> list[ServiceInfo]:
        """What is known, by name; with `interface` those that have it."""
        infos = [self._services[name].info for name in sorted(self._services)]
        return [info for info in infos if not interface or interface in info.interfaces]

    def get(self, name: str) -> ServiceInfo:
        """Raises `ServiceNotFound`."""
        return self._known(name).info

    def select(self, criteria: Criteria) -> ServiceInfo | None:
        """The best service that fits now (see `selection.best` for the order); None if none does."""
        return best((service.info for service in self._services.values()), criteria)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener(event)` is called at once for every `ServiceEvent` from now on, on the event loop; it must not
        wait (a queue's `put_nowait` will do). Returns what ends the subscription."""
        return self._listeners.add(listener)

    def metrics(self, name: str = "") -> list[ServiceMetrics]:
        """The figures of all services by name, or of the one called `name`. Raises `ServiceNotFound`."""
        if name:
            return [self._known(name).metrics]
        return [self._services[known].metrics for known in sorted(self._services)]

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def call(self, call: StepCall) -> Any:
        """Perform a step. `call.service` is a service's name, or an interface: then the best service that has it is
        taken. `call.metadata["criteria"]` may ask for more (the fields of `Criteria`).

        Raises `ServiceNotFound`, `InvalidParameters`, other `PermanentError`s that the service raises, `RetryLater`
        (the circuit is open, or the service says so), `UnavailableError`, and whatever a local method raises."""
        return await self._resolve(call.service, criteria_of(call)).call(call)

    async def perform(self, effect: EffectCall) -> Any:
        """Perform a chart's `call` effect, as `engine.performer("call", services.perform)` has it: with the balancing,
        circuits and local services of this registry. Raises as `call` does."""
        return await self.call(from_effect(effect))

    def _resolve(self, name: str, criteria: Criteria | None) -> Service:
        """The service that is to be asked. Raises `ServiceNotFound`, `RetryLater`, `UnavailableError`."""
        known = self._services.get(name)
        if known is not None and criteria is None:
            return known
        wanted = _asking(criteria or Criteria(), name)
        if (chosen := self.select(wanted)) is not None:
            return self._services[chosen.name]
        able = [service for known, service in self._services.items() if name in {known, *service.profile.interfaces}]
        if able:
            why = "; ".join(lacks(service.info, wanted) for service in able)
            if waits := [service.open_for_s for service in able if service.open_for_s]:
                raise RetryLater(min(waits), f"no service fits '{name}' now: {why}", counted=False)
            raise UnavailableError(f"no service fits '{name}' now: {why}")
        if self._bus is None:
            there = ", ".join(sorted(self._services)) or "none"
            raise ServiceNotFound(f"no service is called '{name}' or has that interface; registered: {there}")
        return self._service_named(Profile(name=name))  # The bus refuses what can't be a subject.

    # -- health --------------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Ask every instance for its health once, and the bus who is there. Done every `check_every_s` in the
        background."""
        checks = [
            self._check(service, member)
            for service in self._services.values()
            for member in service.members.values()
            if not member.is_remote
        ]
        await asyncio.gather(*checks)
        if self._discovery is not None:
            try:
                await self._discovery.look(self._services)
            except UnavailableError as error:
                _LOG.warning("services can't be looked for now: %s", error)
        for service in self._services.values():
            service.refresh()

    async def _check(self, service: Service, member: Member) -> None:
        fault = await member.check(self._health_timeout_s, self._threads)
        if not fault:
            service.find(member)
            return
        member.misses += 1
        if member.misses >= self._misses_max:
            service.lose(member, fault)

    async def _check_for_ever(self) -> None:
        while True:
            due_at = self._clock.now() + self._check_every_ns
            while self._clock.now() < due_at:
                await self._clock.sleep_until(due_at)
            try:
                await self.check()
            except Exception:
                _LOG.exception("the health of services can't be checked now")

    # -- within --------------------------------------------------------------------------------------------------------

    def _register(
        self, profile: Profile, strategy: StrategyName | Strategy | None, circuit: CircuitPolicy | None, *, remote: bool
    ) -> Service:
        known = self._services.get(profile.name)
        if known is not None and known.is_registered:
            raise AlreadyExistsError(f"a service called '{profile.name}' is registered already")
        service = self._made(profile, strategy, circuit, remote=remote)
        service.is_registered = True
        if known is not None and remote:  # It was announced before it was registered.
            for member in known.members.values():
                service.add(member)
        return service

    def _service_named(self, profile: Profile) -> Service:
        """The service on the bus that is called so; made if it isn't known."""
        known = self._services.get(profile.name)
        return known if known is not None else self._made(profile, None, None, remote=True)

    def _made(
        self, profile: Profile, strategy: StrategyName | Strategy | None, circuit: CircuitPolicy | None, *, remote: bool
    ) -> Service:
        chosen = self._strategy if strategy is None else _strategy(strategy)
        self._tell("service_registered", profile.name, "", "remote" if remote else "local")
        group = (
            Member(GROUP, RemoteTarget(profile.name, self._bus), is_remote=True)
            if remote and self._bus is not None
            else None
        )
        service = Service(
            profile,
            strategy=chosen,
            circuit=circuit or self._circuit,
            clock=self._clock,
            tell=self._tell,
            group=group,
        )
        self._services[profile.name] = service
        return service

    def _known(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            there = ", ".join(sorted(self._services)) or "none"
            raise ServiceNotFound(f"no service is called '{name}'; registered: {there}")
        return service

    def _tell(self, kind: ServiceEventKind, service: str, instance: str, detail: str) -> None:
        self._listeners.tell(ServiceEvent(kind, service, self._clock.now(), instance, detail))


def _asking(criteria: Criteria, name: str) -> Criteria:
    return msgspec.structs.replace(criteria, interface=criteria.interface or name)


def _strategy(strategy: StrategyName | Strategy) -> Strategy:
    if callable(strategy):
        return strategy
    if strategy not in STRATEGIES:
        raise InvalidError(f"expected a strategy ({', '.join(STRATEGIES)}) or a function, got {strategy!r}")
    return STRATEGIES[strategy]


def _profile(
    name: str,
    version: str = "",
    description: str = "",
    interfaces: Iterable[str] = (),
    metadata: Mapping[str, Json] | None = None,
    priority: int = 0,
    tier: Tier = "standard",
) -> Profile:
    check_id("a service name", name)
    if tier not in get_args(Tier):
        raise InvalidError(f"expected service '{name}' to be of tier {', '.join(get_args(Tier))}, got {tier!r}")
    if type(priority) is not int:
        raise InvalidError(f"expected service '{name}' to have a whole number as priority, got {priority!r}")
    if isinstance(interfaces, str):
        raise InvalidError(f"expected service '{name}' to have a list of interfaces, got the text {interfaces!r}")
    return Profile(
        name=name,
        version=version,
        description=description,
        interfaces=frozenset(interfaces),
        metadata=dict(metadata or {}),
        priority=priority,
        tier=tier,
    )
