"""The simulated world: processes that run the real engine, a bus between them and those who send, and the effects that
handlers have on the outside.

In some worlds the processes come one after another (or one beside another that was paused and is thought dead), in
others several share the store, each with its share of the partitions. Some run old code: they lack a function that
instances need, until they are replaced.
"""

from __future__ import annotations

import asyncio
import io
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from random import Random
from typing import Any, NoReturn

from statewright.engine import EffectCall, Engine, PermanentError
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import UnavailableError, UnusableError
from statewright.engine.parking import ATTEMPTS_MAX
from statewright.engine.recorder import PARTITIONS_DEFAULT
from statewright.engine.relatives import KINDS
from statewright.engine.requests import ExternalEvent
from statewright.projections.metrics_view import MetricsProjection
from tests.simulation.charts import CHARTS, CHILDREN, GATED, HANDLED, LATER
from tests.simulation.doors import AGAIN, Sent, ask
from tests.simulation.faults import Crashed, Fault, Faults
from tests.simulation.loop import Process, SimulatedClock, SimulatedLoop, SimulatedWorker
from tests.simulation.store import FaultPoints, SimulatedRecorder, SimulatedStore, SimulatedView

ANSWER_WITHIN_S = 15.0
"""How long a sender waits before it sends again."""
EVENT_WAIT_S, OTHER_WAIT_S = 3.0, 30.0
"""How long a sender waits when a process can't go on with an instance."""
OLD_MAX = 2
"""How many processes of a run may be of old code."""
_EVER = 2**63 - 1


class Node(Process):
    """A process with an engine in it."""

    def __init__(self, name: str, *, is_old: bool) -> None:
        super().__init__(name)
        self.is_old = is_old
        self.engine: Engine | None = None
        self.gone = asyncio.Event()
        """It died, or is to be thought dead."""
        self.is_closing = False


class World:
    """Everything outside the engine. `options` are handed to `Engine.open`."""

    recorder_class: type[SimulatedRecorder] = SimulatedRecorder
    view_class: type[SimulatedView] = SimulatedView
    rates: Mapping[Fault, float] = {}
    """Of faults whose rates are not to be drawn."""
    looks_max = 1_000
    """How often, five seconds apart, everything may be found not to have come to rest."""
    shared_rate = 0.05
    """How often several workers share the store. Rarely: they look at it so often that such a run takes five times as
    long."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.rng = rng = Random(seed)
        self.seed = seed
        self._verbose = verbose
        self.trace = io.StringIO()
        self.loop = SimulatedLoop(rng, rng.choice((0.0, 0.1, 0.7)))  # type: ignore[abstract]
        self.clock = SimulatedClock(self.loop)
        self.faults = Faults(rng, self.say, self.rates)
        points = FaultPoints(self.faults, self.crash)
        self.workers = rng.choice((2, 2, 3)) if rng.random() < self.shared_rate else 1
        is_shared = self.workers > 1
        self.recorder = self.recorder_class(partitions=rng.choice((1, 2, 4, 7)) if is_shared else PARTITIONS_DEFAULT)
        self.store = SimulatedStore(self.recorder, points, is_shared=is_shared)
        self.view = self.view_class()
        self.view.points = points
        self._points = points
        self._latency_s = rng.choice((0.0001, 0.005, 0.2))
        # The others come from the store, or are known beforehand, which spares compiling them in each process.
        self._charts = CHARTS if rng.random() < 0.2 else (*LATER.values(), *CHILDREN, *CHARTS)
        self.residents_max = rng.choice((0, 1, 10_000, 10_000))
        self.nodes: list[Node] = []
        self._is_next_old = False
        self.serving: list[Node] = []
        self.performed: dict[str, list[Any]] = defaultdict(list)
        """What the outside has seen of each effect, attempt by attempt: the result, or the error."""

    def say(self, what: str) -> None:
        """Into the schedule of the run, by which two runs are compared."""
        line = f"{self.loop.now_ns / SECOND_NS:14.6f}  {what}\n"
        self.trace.write(line)
        if self._verbose:
            print(line, end="")

    # Processes
    def crash(self) -> None:
        """The process whose code is running dies."""
        node = _current_node()
        self.say(f"{node.name} dies")
        node.alive = False
        node.gone.set()

    async def supervise(self) -> None:
        """Keep as many processes serving as there are to be, for ever."""
        await asyncio.gather(*(self._supervise() for _ in range(self.workers)))

    async def _supervise(self) -> NoReturn:
        while True:
            node = Node(f"process {len(self.nodes) + 1}", is_old=self._is_next_old)
            self._is_next_old = False
            self.nodes.append(node)
            opening = self.loop.create_task(self._open(node), context=node.context)
            gone = asyncio.ensure_future(node.gone.wait())
            await asyncio.wait((opening, gone), return_when=asyncio.FIRST_COMPLETED)
            if opening.done() and opening.result():
                self.serving.append(node)
                if node.is_old:
                    await asyncio.wait((gone,), timeout=self.rng.uniform(20.0, 400.0))
                    self.loop.create_task(self._close(node), context=node.context)
                await gone
                self.serving.remove(node)
            gone.cancel()
            await asyncio.sleep(self.delay_s(3.0))

    async def until_replaced(self) -> None:
        """Return once the processes of old code have been replaced, but for those that are opened meanwhile."""
        for node in self.nodes:
            if node.is_old and node in self.serving:
                await node.gone.wait()

    async def _open(self, node: Node) -> bool:
        """Open an engine in `node`; whether that went well."""
        engine = Engine.open(
            self.store,
            charts=[chart for chart in self._charts if not (node.is_old and chart is GATED)],
            clock=_DecidingClock(self, node),
            residents_max=self.residents_max,
            workers=lambda name: SimulatedWorker(self.loop, lambda: self.delay_s(self._latency_s)),
            ids=lambda now: f"{self.rng.getrandbits(32):08x}-{now}",
            **self.options(),
        )
        try:
            await engine.__aenter__()
        except UnavailableError as error:
            self.say(f"{node.name} can't open: {error}")
            return False
        except Crashed:
            return False
        for name in HANDLED:
            engine.handler(name)(self._handle)
        await engine.attach(MetricsProjection(self.view, engine.on_reader, engine.on_writer))
        node.engine = engine
        self.say(f"{node.name} serves")
        return True

    def options(self) -> dict[str, Any]:
        """More of what engines are opened with."""
        return {}

    def delay_s(self, most: float) -> float:
        """Usually short, sometimes as long as `most`."""
        return most * self.rng.random() ** 3

    async def disturb(self) -> None:
        """Pause processes, close them in order, replace them by others, and let the clock leap, until all is healed."""
        while not self.faults.healed:
            await asyncio.sleep(self.rng.expovariate(0.5))
            if not self.serving:
                continue
            node = self.rng.choice(self.serving)
            if self.faults.strike(Fault.PAUSED, 5):
                self.loop.create_task(self._pause(node))
            elif self._may_be_old() and self.faults.strike(Fault.OLD_CODE, 5):
                self._is_next_old = True
                self.loop.create_task(self._close(node), context=node.context)
            elif self.faults.strike(Fault.CLOSED, 3):
                self.loop.create_task(self._close(node), context=node.context)
            elif self.faults.strike(Fault.CLOCK_LEAPS, 3):
                self.clock.leap(self.rng.choice((-10, -1, 1, 30, 700)) * SECOND_NS)

    def _may_be_old(self) -> bool:
        """Whether it matters, and there have not been too many."""
        matters = any(
            row.definition == GATED.name and row.ended_at is None for row in self.recorder._instances.values()
        )
        return matters and sum(node.is_old for node in self.nodes) < OLD_MAX

    async def _pause(self, node: Node) -> None:
        """Stop it and let it wake. On a store that is not shared another takes over meanwhile; then it goes on
        believing that it serves, until it dies."""
        self.say(f"{node.name} is paused")
        node.paused = True
        for_s = self.rng.uniform(0.1, self.rng.choice((3.0, 20.0)))
        if self.store.is_shared:
            await asyncio.sleep(for_s)
            self.say(f"{node.name} wakes")
            self.loop.wake(node)
            return
        node.gone.set()
        await asyncio.sleep(for_s)
        self.say(f"{node.name} wakes")
        self.loop.wake(node)
        await asyncio.sleep(self.rng.uniform(0.01, 20.0))
        if node.alive:
            self.say(f"{node.name} is killed")
            node.alive = False

    async def _close(self, node: Node) -> None:
        if node.is_closing or not node.alive:
            return
        node.is_closing = True
        self.say(f"{node.name} is closed")
        assert node.engine is not None
        await node.engine.close()
        self.say(f"{node.name} has closed")
        node.alive = False
        node.gone.set()

    # The outside
    async def _handle(self, call: EffectCall) -> Any:
        """Perform an effect: it takes time, may be given up, and may fail, once or for good."""
        seen = self.performed[call.effect_id]
        try:
            await asyncio.sleep(self.delay_s(2.0))
            call.heartbeat({"attempt": call.attempt})
            await asyncio.sleep(self.delay_s(2.0))
        except asyncio.CancelledError:
            seen.append("it was given up")
            raise
        drawn = self.rng.random()
        result = self.rng.randrange(100)
        error = "it broke" if drawn < 0.1 else "it may work later" if drawn < 0.2 else ""
        seen.append(error or result)
        self.say(f"{_current_node().name} performs {call.effect_id} attempt {call.attempt}: {error or result}")
        if self.faults.strike(Fault.EFFECT_NOT_RECORDED, 5):
            self.crash()
            await asyncio.sleep(0)
        if drawn < 0.1:
            raise PermanentError(error)
        if error:
            raise OSError(error)
        return result

    # The bus
    async def ask(self, request: Sent) -> Any:
        """Send `request` until there is an answer that is one; that answer, or the error that it is. An event that a
        process can't deliver is given up after a while: that error is the answer then."""
        unusable = 0
        while True:
            answer = await self.ask_once(request)
            if answer is not None and not isinstance(answer, AGAIN):
                return answer
            if isinstance(answer, UnusableError):
                unusable += 1
                if unusable == ATTEMPTS_MAX and isinstance(request, ExternalEvent):
                    return answer
                await asyncio.sleep(EVENT_WAIT_S if isinstance(request, ExternalEvent) else OTHER_WAIT_S)
            await asyncio.sleep(self.delay_s(2.0))

    async def ask_once(self, request: Sent) -> Any:
        """The answer, None if it did not come in time."""
        reply: asyncio.Future[Any] = self.loop.create_future()
        if not self.faults.strike(Fault.REQUEST_LOST):
            self._carry(request, reply)
        while self.faults.strike(Fault.REQUEST_DOUBLED):
            self._carry(request, reply)
        await asyncio.wait((reply,), timeout=ANSWER_WITHIN_S)
        return reply.result() if reply.done() else None

    def _carry(self, request: Sent, reply: asyncio.Future[Any]) -> None:
        late = self.faults.strike(Fault.REQUEST_LATE, 3)
        delay_s = self.rng.uniform(0, 2 * ANSWER_WITHIN_S) if late else self.delay_s(self._latency_s)
        self.loop.call_later(delay_s, self._arrive, request, reply)

    def _arrive(self, request: Sent, reply: asyncio.Future[Any]) -> None:
        """At an engine that serves, if any does; else it is lost."""
        serving = [node for node in self.serving if node.alive and not node.is_closing]
        if serving:
            node = self.rng.choice(serving)
            self.loop.call_soon(self._serve, node, request, reply, context=node.context)

    def _serve(self, node: Node, request: Sent, reply: asyncio.Future[Any]) -> None:
        """In the process: what a door does."""
        assert node.engine is not None
        try:
            answered = asyncio.ensure_future(self.reach(node.engine, request), loop=self.loop)
        except AGAIN as error:
            self._answer(reply, error)
            return
        answered.add_done_callback(lambda done: self._answer(reply, done.exception() or done.result()))

    def reach(self, engine: Engine, request: Sent) -> Awaitable[Any]:
        """What comes of `request` at the doors of `engine`. Raises as they do."""
        return ask(engine, request)

    def _answer(self, reply: asyncio.Future[Any], answer: Any) -> None:
        if self.faults.strike(Fault.BEFORE_ACK):
            self.crash()
            return
        if not self.faults.strike(Fault.REPLY_LOST):
            outside = copy_context()
            Process.leave(outside)
            self.loop.call_later(self.delay_s(self._latency_s), _reply, reply, answer, context=outside)

    # Rest
    async def until_quiet(self, tend: Callable[[], Awaitable[None]]) -> None:
        """Let time run until nothing is to be done any more: no more faults, and nobody who is thought dead. `tend` is
        what those outside do now and then."""
        self.faults.healed = True
        for node in self.nodes[:-1]:
            if node not in self.serving:
                node.alive = False
        for _ in range(self.looks_max):
            await asyncio.sleep(5.0)
            await tend()
            busy = self._busy_with()
            if not busy:
                return
        raise AssertionError(f"expected everything to come to rest, but {busy}")

    def _busy_with(self) -> str:
        """What is still to be done, "" if nothing is."""
        recorder, position = self.recorder, self.recorder.max_notification_id() or 0
        if not self.serving:
            return "nobody serves"
        if recorder._parked:
            return f"things are parked: {list(recorder._parked)}"
        if unsettled := self._unsettled_shares():
            return unsettled
        if schedules := recorder.due_schedules(_EVER, 1):
            return f"schedules go on: {schedules}"
        if timers := recorder.due_timers(_EVER, 3):
            return f"timers are set: {timers} at {self.clock.now()}"
        if recorder.next_effect_at(names=HANDLED, kinds=KINDS) is not None:
            return f"effects are open: {[recorder._effects[effect_id] for effect_id in recorder._open]}"
        if self.view.position != position:
            return f"the metrics are at {self.view.position} of {position}"
        return ""

    def _unsettled_shares(self) -> str:
        """ "" if each partition is one worker's, none has more than its part, and they believe what the store says."""
        shares = [node.engine.shares for node in self.serving if node.engine is not None]
        count, held = self.recorder.partitions, [set(one.partitions() or ()) for one in shares if one is not None]
        if not held:
            return ""
        owners = {lease.name: lease.owner for lease in self.recorder.select_leases()}
        stored = [{n for n in range(count) if owners.get(f"partition:{n}") == one.worker} for one in shares if one]
        if stored != held or set().union(*held) != set(range(count)) or sum(map(len, held)) != count:
            return f"the partitions are {stored} by their leases, the workers believe {held}"
        if max(map(len, held)) > -(-count // len(held)):
            return f"the partitions are shared unequally: {held}"
        return ""


class _DecidingClock:
    """A process's clock. The engine looks at it right before it decides."""

    def __init__(self, world: World, node: Node) -> None:
        self._world = world
        self._node = node

    def now(self) -> int:
        if self._node.alive and self._world.faults.strike(Fault.BEFORE_DECIDE, 0.3):
            self._world.say(f"{self._node.name} dies")
            self._node.alive = False  # What it decides now, nobody will see.
            self._node.gone.set()
        return self._world.clock.now()

    async def sleep_until(self, due_at: int) -> None:
        await self._world.clock.sleep_until(due_at)


def _reply(reply: asyncio.Future[Any], answer: Any) -> None:
    if not reply.done():
        reply.set_result(answer)


def _current_node() -> Node:
    node = Process.current()
    assert isinstance(node, Node)
    return node
