"""Plugins served over NATS: the methods of one, from any process, as a service that steps and `call` effects reach.

A plugin called `parser` answers requests for its method `words` on `statewright.calls.parser.words`, in a queue group
with all that serve it, and alone on the same subject with its id as one more word. `nats.micro` makes it known (PING,
INFO and STATS). The subscriptions are ours, because the library's take one request at a time and lose what is on its
way when they stop.

Invariants: every request with a reply subject gets one answer, and after `stop` has begun still. A request is performed
only before its deadline. Errors are `Nats-Service-Error` headers whose code says whether asking again can help.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER
from nats.micro.service import (
    DEFAULT_QUEUE_GROUP,
    EndpointInfo,
    EndpointStats,
    Service,
    ServiceConfig,
    ServiceInfo,
    ServiceStats,
)
from packaging.version import Version

from statewright.adapters.plugins.errors import MethodNotFound
from statewright.adapters.plugins.plugin import Plugin
from statewright.adapters.plugins.plugins import Plugins
from statewright.adapters.plugins.requests import Refusal, Sender, late, read_request, refusal_of
from statewright.engine.clock import SECOND_NS, Clock, SystemClock
from statewright.engine.errors import InvalidError
from statewright.engine.services import CALLS, INSTANCE_KEY
from statewright.engine.threads import CLOSING_S, THREADS_MAX
from statewright.statecharts.facts import Json

WAITING_MAX = 1_000
"""How many requests may wait for their turn; those beyond it are answered "503" at once."""
CANCELLED_S = 1.0
"""How long `stop` waits for those that it has cancelled, to be answered."""
UNKNOWN_S = 0.25
"""How long others of the service are waited for to say that they have a method that isn't here."""

_LOG = logging.getLogger("statewright.plugins")
_encode = msgspec.json.Encoder().encode


class _Endpoint:
    """What is counted of one method."""

    def __init__(self, method: str, subject: str, metadata: Mapping[str, str]) -> None:
        self.method = method
        self.subject = subject
        self.metadata = dict(metadata)
        self.requests = self.errors = self.processing_ns = 0
        self.last_error = ""


class _Service(Service):
    """The library's, for what the server tells of itself."""

    def __init__(self, nats: NatsClient, config: ServiceConfig, load: Callable[[], Mapping[str, Json]]) -> None:
        super().__init__(nats, config)
        self.endpoints: list[_Endpoint] = []
        self._load = load

    def info(self) -> ServiceInfo:
        return replace(
            super().info(),
            endpoints=[
                EndpointInfo(each.method, each.subject, DEFAULT_QUEUE_GROUP, each.metadata) for each in self.endpoints
            ],
        )

    def stats(self) -> ServiceStats:
        data = dict(self._load())
        return replace(
            super().stats(),
            endpoints=[
                EndpointStats(
                    name=each.method,
                    subject=each.subject,
                    queue_group=DEFAULT_QUEUE_GROUP,
                    num_requests=each.requests,
                    num_errors=each.errors,
                    processing_time=each.processing_ns,
                    average_processing_time=each.processing_ns // max(1, each.requests),
                    last_error=each.last_error,
                    data=data,
                )
                for each in self.endpoints
            ],
        )


class PluginServer:
    """One plugin of `plugins`, served. `async with PluginServer(...)`, or `start` and `stop`; the connection and the
    plugins are the caller's and stay as they are."""

    def __init__(
        self,
        nats: NatsClient,
        plugins: Plugins,
        name: str,
        *,
        concurrency: int = THREADS_MAX,
        metadata: Mapping[str, str] | None = None,
        load: Callable[[], float] | None = None,
        clock: Clock | None = None,
        closing_s: float = CLOSING_S,
    ) -> None:
        """concurrency: how many calls are performed at once. metadata: what to tell of the service beside its version.
        load: 0..1, what is reported as its load (by default the calls under way or waiting, of `concurrency`).
        closing_s: how long `stop` waits for calls under way. Raises `PluginNotFound` and `InvalidError`."""
        if concurrency < 1:
            raise InvalidError(f"expected a concurrency of at least 1, got {concurrency}")
        self.plugin: Plugin = plugins.get(name)
        self._nats = nats
        self._plugins = plugins
        self._clock = clock or SystemClock()
        self._closing_s = closing_s
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._load = load
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        given: dict[str, str] = {"version": str(self.plugin.version), **(metadata or {})}
        config = ServiceConfig(
            self.plugin.name, semantic(self.plugin.version), self.plugin.description, given, DEFAULT_QUEUE_GROUP
        )
        self._service = _Service(nats, config, self._reported)
        given[INSTANCE_KEY] = self.id

    @property
    def id(self) -> str:
        """This one among those that serve the plugin."""
        return self._service.id

    @property
    def in_flight(self) -> int:
        """How many calls are under way or waiting."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve. When it returns, the nats-server has all its subscriptions: it has answered the second flush (the
        first is in `nats.micro`'s own start)."""
        prefix = f"{CALLS}{self.plugin.name}"
        try:
            for method in self.plugin.methods.values():
                metadata = {"signature": method.signature, "description": method.description}
                for subject in (f"{prefix}.{method.name}", f"{prefix}.{method.name}.{self.id}"):
                    endpoint = _Endpoint(method.name, subject, metadata)
                    self._service.endpoints.append(endpoint)
                    await self._subscribe(subject, DEFAULT_QUEUE_GROUP, partial(self._take, endpoint))
            await self._subscribe(f"{prefix}.*", f"{DEFAULT_QUEUE_GROUP}-unknown", self._take_unknown)
            await self._service.start()
            # nats-py writes a flush's PING before what is pending: only a second one tells that the first has it all.
            await self._nats.flush()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take no more requests, and let those that are here end; what has not ended in time is answered "503", to be
        tried again elsewhere. Idempotent."""
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            async with asyncio.timeout(self._closing_s):
                await self._service.stop()
                # The one that hears everything first: it leaves what is served here to the others.
                for subscription in reversed(subscriptions):
                    await subscription.drain()  # type: ignore[no-untyped-call]  # What is on its way is still taken.
        except (nats.errors.Error, TimeoutError) as error:
            _LOG.warning("plugin %s can't say that it stops: %s", self.plugin.name, error or type(error).__name__)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._closing_s)
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        if left:
            _LOG.warning("plugin %s stops with %d calls that have not ended", self.plugin.name, len(left))
            await asyncio.wait(left, timeout=CANCELLED_S)

    # -- requests ------------------------------------------------------------------------------------------------------

    async def _subscribe(self, subject: str, queue: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        self._subscriptions.append(await self._nats.subscribe(subject, queue=queue, cb=take))

    async def _take(self, endpoint: _Endpoint, request: Msg) -> None:
        """Never waits for the call, so that the next one is not held up."""
        endpoint.requests += 1
        if not request.reply:
            _LOG.warning("a message on %s asks for no reply: it is not performed", request.subject)
            return
        if self.in_flight >= self._concurrency + WAITING_MAX:
            await self._answer(request.reply, self._counted(endpoint, Refusal("503", "too many calls wait here")))
            return
        self._spawn(self._serve(endpoint, request))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, endpoint: _Endpoint, request: Msg) -> None:
        began_at = time.perf_counter_ns()
        sender = Sender(self._nats, request.reply)
        answer: bytes | Refusal
        try:
            answer = _encode(await self._perform(endpoint.method, request, sender))
        except asyncio.CancelledError:  # By `stop`, which waits for us.
            answer = self._counted(endpoint, Refusal("503", "the call was cancelled: the service stops"))
        except BaseException as error:
            answer = self._counted(endpoint, refusal_of(error))
            if answer.code == "500":
                _LOG.warning("%s failed: %s", request.subject, answer.text)
        sender.is_over = True
        endpoint.processing_ns += time.perf_counter_ns() - began_at
        await self._answer(request.reply, answer)

    async def _perform(self, method: str, request: Msg, sender: Sender) -> Json:
        """Raises `late` when its deadline passes, and what the call raises."""
        call = read_request(self.plugin.name, method, request, sender)
        left_s = (call.deadline_ns - self._clock.now()) / SECOND_NS if call.deadline_ns else None
        if left_s is not None and left_s <= 0:
            raise late(-left_s)
        until = asyncio.timeout(left_s)
        try:
            async with until, self._slots:
                return await self._plugins.call(call)
        except TimeoutError as error:
            if until.expired():
                raise late(0) from error
            raise

    async def _answer(self, reply: str, answer: bytes | Refusal) -> None:
        try:
            if isinstance(answer, bytes):
                try:
                    await self._nats.publish(reply, answer)
                    return
                except nats.errors.MaxPayloadError:
                    answer = Refusal("413", f"the result has {len(answer):,} bytes, more than the nats-server takes")
            headers = {ERROR_HEADER: answer.text, ERROR_CODE_HEADER: answer.code}
            if answer.retry_after_s is not None:
                headers["Retry-After"] = str(answer.retry_after_s)
            await self._nats.publish(reply, b"", headers=headers)
        except nats.errors.Error as error:  # Who asked hears nothing, and asks again.
            _LOG.warning("plugin %s can't answer: %s", self.plugin.name, error)

    def _counted(self, endpoint: _Endpoint, refusal: Refusal) -> Refusal:
        endpoint.errors += 1
        endpoint.last_error = f"{refusal.code}: {refusal.text}"
        return refusal

    def _reported(self) -> Mapping[str, Json]:
        load = self.in_flight / self._concurrency
        if self._load is not None:
            try:
                load = float(self._load())
            except Exception:  # It must not keep the statistics from being told.
                _LOG.exception("plugin %s can't tell its load", self.plugin.name)
        load = min(max(load, 0.0), 1.0)
        healthy = self._plugins.is_active(self.plugin.name)
        return {"load": load, "healthy": healthy, "in_flight": self.in_flight, "concurrency": self._concurrency}

    # -- methods that are not here -------------------------------------------------------------------------------------

    async def _take_unknown(self, request: Msg) -> None:
        """Hears all requests for the service: a method that isn't here gets no answer by itself."""
        method = request.subject.rpartition(".")[2]
        if request.reply and method not in self.plugin.methods:
            self._spawn(self._refuse(method, request))

    async def _refuse(self, method: str, request: Msg) -> None:
        """A "404", unless another version of the service, somewhere else, has the method and answers."""
        try:
            if not await self._is_served(request.subject):
                self.plugin.method(method)
        except MethodNotFound as error:
            await self._answer(request.reply, refusal_of(error))
        except nats.errors.Error as error:
            _LOG.warning("plugin %s can't ask who serves '%s': %s", self.plugin.name, method, error)

    async def _is_served(self, subject: str) -> bool:
        answers = await self._nats.subscribe(inbox := self._nats.new_inbox())
        try:
            await self._nats.publish(f"$SRV.INFO.{self.plugin.name}", reply=inbox)
            async with asyncio.timeout(UNKNOWN_S):
                async for answer in answers.messages:
                    if any(each.subject == subject for each in _endpoints_in(answer.data)):
                        return True
        except TimeoutError:
            pass
        finally:
            if not self._nats.is_closed:
                await answers.unsubscribe()
        return False


@asynccontextmanager
async def serve_plugin(
    nats: NatsClient,
    plugin: Any,
    *,
    needs: tuple[Any, ...] = (),
    plugins: Plugins | None = None,
    **options: Any,
) -> AsyncIterator[PluginServer]:
    """Serve a plugin over a connection of nats-py until the block ends.

    plugin: a class, a module or an object; or the name of one of `plugins`, which are yours and active. needs: what a
    class, module or object depends on. options: those of `PluginServer`. Raises what `Plugins.start` raises.
    """
    if plugins is not None:
        async with PluginServer(nats, plugins, plugin, **options) as server:
            yield server
        return
    async with Plugins(needs) as own:
        name = own.register(plugin).name
        await own.start()
        async with PluginServer(nats, own, name, **options) as server:
            yield server


def semantic(version: Version) -> str:
    """A PEP 440 version as the semantic version that `nats.micro` asks for: 1.2rc1 is 1.2.0-rc1."""
    numbers = ".".join(map(str, (*version.release, 0, 0)[:3]))
    parts = [f"{version.pre[0]}{version.pre[1]}"] if version.pre else []
    parts += [f"dev{version.dev}"] if version.dev is not None else []
    build = [f"post{version.post}"] if version.post is not None else []
    build += [".".join(map(str, version.release[3:]))] if version.release[3:] else []
    build += [version.local] if version.local else []
    return numbers + (f"-{'.'.join(parts)}" if parts else "") + (f"+{'.'.join(build)}" if build else "")


class _Info(msgspec.Struct):
    subject: str


class _Infos(msgspec.Struct):
    endpoints: list[_Info] = []


def _endpoints_in(data: bytes) -> list[_Info]:
    """Of an INFO answer, which may come from any program."""
    try:
        return msgspec.json.decode(data, type=_Infos).endpoints
    except msgspec.DecodeError:
        return []
