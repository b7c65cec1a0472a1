"""`Plugins`: what is registered, its lifecycle, and the calls that steps make.

Invariants: a plugin is active only while all that it depends on is. If one can't be activated, those that were with it
are deactivated and cleaned up, in reverse order. No call begins in a plugin that is about to go, and those under way
are waited for, a bounded time. Plain functions run in threads, a bounded number at once; coroutines on the event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import msgspec

from statewright.adapters.plugins.dependencies import key_of, load_order, used
from statewright.adapters.plugins.discovery import GROUP, find_plugins
from statewright.adapters.plugins.errors import (
    InvalidPlugin,
    PluginExists,
    PluginFailed,
    PluginInUse,
    PluginNotActive,
)
from statewright.adapters.plugins.methods import Method
from statewright.adapters.plugins.plugin import Plugin
from statewright.engine.errors import InvalidError
from statewright.engine.threads import CLOSING_S, THREADS_MAX, Threads
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import PluginNotFound
from statewright.statecharts.facts import Json

State = Literal["registered", "active", "leaving"]

_LOG = logging.getLogger("statewright.plugins")


class PluginInfo(msgspec.Struct, frozen=True):
    """What `Plugins.info` tells of a plugin. `methods` are signatures; `warnings` say what it goes without."""

    name: str
    version: str
    state: State
    description: str
    origin: str
    dependencies: tuple[str, ...]
    optional_dependencies: tuple[str, ...]
    methods: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class _Loaded:
    """A registered plugin, and its object once it is initialised."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.state: State = "registered"
        self.target: Any = None
        self.warnings: tuple[str, ...] = ()
        self.calls: set[object] = set()
        self._changed = asyncio.Event()

    def release(self, call: object) -> None:
        self.calls.discard(call)
        self._changed.set()

    async def idle(self, timeout_s: float) -> None:
        """Wait until no call is under way, but not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.calls:
                    self._changed.clear()
                    await self._changed.wait()
        if self.calls:
            said = (self.plugin.name, len(self.calls), timeout_s)
            _LOG.warning("plugin %s goes with %d calls that have not ended within %g s", *said)


class Plugins:
    """The plugins of a process. `async with Plugins([Greeter]) as plugins: ...`, or `start` and `close`."""

    def __init__(
        self,
        sources: Iterable[Any] = (),
        *,
        discover: bool = False,
        threads_max: int = THREADS_MAX,
        closing_s: float = CLOSING_S,
    ) -> None:
        """sources: classes, modules or objects to register. discover: those that are installed, too. threads_max: how
        many plain functions may run at once. closing_s: how long calls under way are waited for.

        Raises `InvalidError`, and what `register` and `discover` raise."""
        if threads_max < 1:
            raise InvalidError(f"expected threads_max to be at least 1, got {threads_max}")
        self._loaded: dict[str, _Loaded] = {}
        """By key, in the order in which they were registered."""
        self._order: list[_Loaded] = []
        """Those that are active, each after what it depends on."""
        self._threads = Threads(threads_max, closing_s)
        self._closing_s = closing_s
        self._lock = asyncio.Lock()
        for source in sources:
            self.register(source)
        if discover:
            self.discover()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- what is there -------------------------------------------------------------------------------------------------

    def register(self, source: Any) -> Plugin:
        """Add a plugin: a class, a module, or an object of a class. It is activated by `start`, which may be called
        again for it. Raises `InvalidPlugin` and `PluginExists`."""
        return self._add(source if isinstance(source, Plugin) else Plugin(source))

    def discover(self, only: Collection[str] | None = None, *, group: str = GROUP) -> tuple[Plugin, ...]:
        """Register what is installed under the entry points of `group`, or `only` those of these names.

        Raises `InvalidPlugin` with all that is wrong, `PluginNotFound` for what is not installed, and `PluginExists`;
        then none is registered."""
        found = find_plugins(group, only)
        wrong = [str(each.problem) for each in found if each.problem is not None]
        if wrong:
            raise InvalidPlugin("; ".join(wrong))
        plugins = tuple(each.plugin for each in found if each.plugin is not None)
        for plugin in plugins:
            self._check_free(plugin)
        return tuple(self._add(plugin) for plugin in plugins)

    def info(self) -> tuple[PluginInfo, ...]:
        """All that are registered, in that order."""
        return tuple(
            PluginInfo(
                each.plugin.name,
                str(each.plugin.version),
                each.state,
                each.plugin.description,
                each.plugin.origin,
                tuple(need.text for need in each.plugin.dependencies if not need.optional),
                tuple(need.text for need in each.plugin.dependencies if need.optional),
                tuple(method.signature for method in each.plugin.methods.values()),
                each.warnings,
            )
            for each in self._loaded.values()
        )

    def get(self, name: str) -> Plugin:
        """Raises `PluginNotFound` with the names of those that there are."""
        return self._find(name).plugin

    def find(self, plugin: str, method: str) -> Method:
        """Raises `PluginNotFound`, of which `MethodNotFound` is one."""
        return self.get(plugin).method(method)

    def is_active(self, name: str) -> bool:
        """Whether it is registered and takes calls."""
        loaded = self._loaded.get(key_of(name))
        return loaded is not None and loaded.state == "active"

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Initialise and activate what is registered and not active yet, each after what it depends on. May be called
        again, for what was registered since.

        Raises `PluginDependencyNotSatisfied` and `CircularDependency` before anything is called, and `PluginFailed`
        when a plugin raises: then those that this call has activated are deactivated and cleaned up, in reverse order.
        """
        async with self._lock:
            order = load_order(each.plugin for each in self._loaded.values())
            begun: list[_Loaded] = []
            for plugin in order.plugins:
                loaded = self._loaded[plugin.key]
                if loaded.state == "active":
                    continue
                loaded.warnings = order.warnings.get(plugin.key, ())
                for warning in loaded.warnings:
                    _LOG.warning("plugin %s %s", plugin.name, warning)
                await self._begin_or_undo(loaded, begun)
                begun.append(loaded)

    async def close(self) -> None:
        """Deactivate and clean up all that are active, in reverse order; what raises does not hold up the others. They
        stay registered. Raises `PluginFailed` at the end if one has raised."""
        async with self._lock:
            errors = await self._end_all([*reversed(self._order)])
            await self._threads.close()
        if errors:
            raise _failed("; ".join(map(str, errors)), errors[0])

    async def unregister(self, name: str) -> None:
        """Take a plugin away: no new calls, those under way are waited for, then it is deactivated and cleaned up.
        Raises `PluginNotFound`, `PluginInUse` while others depend on it, and `PluginFailed` after it has gone if it has
        raised."""
        async with self._lock:
            loaded = self._find(name)
            self._check_unused(loaded, "taken away")
            errors = await self._end_all([loaded] if loaded.state == "active" else [])
            del self._loaded[loaded.plugin.key]
        if errors:
            raise errors[0]

    async def replace(self, source: Any) -> Plugin:
        """Put a plugin in the place of the one of the same name, and activate it if that one is active. The old one
        goes when the new one is active: if that fails, or what it needs is not there, nothing has changed.

        Raises `InvalidPlugin`, `PluginNotFound`, `PluginInUse` while others depend on the old one,
        `PluginDependencyNotSatisfied`, `CircularDependency`, and `PluginFailed`."""
        plugin = source if isinstance(source, Plugin) else Plugin(source)
        async with self._lock:
            old = self._find(plugin.name)
            self._check_unused(old, "replaced")
            others = {key: each.plugin for key, each in self._loaded.items()} | {plugin.key: plugin}
            new = _Loaded(plugin)
            new.warnings = load_order(others.values()).warnings.get(plugin.key, ())
            errors: list[PluginFailed] = []
            if old.state == "active":
                for each in used(plugin, others):
                    if self._loaded[each.key].state != "active":
                        raise PluginNotActive(f"plugin '{plugin.name}' needs '{each.name}', which is not active yet")
                await self._begin_or_undo(new, [])
            self._loaded[plugin.key] = new
            if old.state == "active":
                errors = await self._end_all([old])
        if errors:
            raise errors[0]
        return plugin

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def call(self, call: StepCall) -> Json:
        """Call `call.method` of `call.plugin`; what it returns, as JSON.

        Raises `PluginNotFound`, `MethodNotFound`, `InvalidParameters`, `InvalidResult` (final), `PluginNotActive`, and
        what the method raises.
        """
        loaded = self._find(call.plugin)
        plugin = loaded.plugin
        method = plugin.method(call.method)
        arguments = method.bind(call, plugin.name)
        if loaded.state != "active":
            why = "is about to go" if loaded.state == "leaving" else "is registered, but not active yet"
            raise PluginNotActive(f"plugin '{plugin.name}' {why}")
        function = partial(getattr(loaded.target, method.name), **arguments)
        if method.is_async:
            with _under_way(loaded):
                result = await function()
        else:
            result = await self._in_thread(loaded, f"{plugin.name}.{method.name} {call.effect_id}".rstrip(), function)
        return method.check(result, plugin.name)

    async def invoke(self, plugin: str, method: str, parameters: Mapping[str, Json] | None = None) -> Json:
        """`call` without a step, for tests and for trying."""
        return await self.call(StepCall("", "", "", plugin=plugin, method=method, parameters=parameters or {}))

    async def _in_thread(self, loaded: _Loaded, name: str, function: Callable[[], Any]) -> Any:
        """The call counts until its thread ends, even if nobody waits for it any more."""
        loop, call, has_begun = asyncio.get_running_loop(), object(), False

        def work() -> Any:
            nonlocal has_begun
            has_begun = True
            try:
                return function()
            finally:
                with suppress(RuntimeError):  # The loop was closed: nobody counts any more.
                    loop.call_soon_threadsafe(loaded.release, call)

        loaded.calls.add(call)
        try:
            result = await self._threads.run(name, work)
        finally:
            if not has_begun:
                loaded.release(call)
        if inspect.isawaitable(result):  # A plain function that hands on a coroutine.
            with _under_way(loaded):
                return await result
        return result

    # -- inside --------------------------------------------------------------------------------------------------------

    def _add(self, plugin: Plugin) -> Plugin:
        self._check_free(plugin)
        self._loaded[plugin.key] = _Loaded(plugin)
        return plugin

    def _check_free(self, plugin: Plugin) -> None:
        if (there := self._loaded.get(plugin.key)) is not None:
            raise PluginExists(
                f"plugin '{plugin.name}' {plugin.version} from {plugin.origin} can't be registered: there is "
                f"'{there.plugin.name}' {there.plugin.version} from {there.plugin.origin}"
            )

    def _find(self, name: str) -> _Loaded:
        loaded = self._loaded.get(key_of(name))
        if loaded is None:
            there = ", ".join(each.plugin.name for each in self._loaded.values()) or "none"
            raise PluginNotFound(f"expected a registered plugin ({there}), got {name!r}")
        return loaded

    def _check_unused(self, loaded: _Loaded, what: str) -> None:
        known = {key: each.plugin for key, each in self._loaded.items()}
        dependents = [
            each.name for each in known.values() if any(there is loaded.plugin for there in used(each, known))
        ]
        if dependents:
            said = f"plugin '{loaded.plugin.name}' can't be {what} while others depend on it: {', '.join(dependents)}"
            raise PluginInUse(said, dependents)

    async def _begin_or_undo(self, loaded: _Loaded, begun: list[_Loaded]) -> None:
        """Initialise and activate one; if that fails, undo what it has begun and `begun`, newest first."""
        initialised, stage = False, "initialise"
        try:
            loaded.target = loaded.plugin.make()
            await self._run_hook(loaded, stage)
            initialised, stage = True, "activate"
            await self._run_hook(loaded, stage)
        except BaseException as error:
            errors = [await self._end_stage(loaded, "clean_up")] if initialised else []
            loaded.target = None
            undone = [each.plugin.name for each in reversed(begun)]
            errors += await self._end_all([*reversed(begun)])
            if not isinstance(error, Exception):
                raise
            said = _said(loaded, stage, error)
            if undone:
                said += f"; deactivated and cleaned up: {', '.join(undone)}"
            said = "; ".join([said, *(str(each) for each in errors if each is not None)])
            raise PluginFailed(said, loaded.plugin.name, stage, undone) from error
        loaded.state = "active"
        self._order.append(loaded)

    async def _end_all(self, leaving: list[_Loaded]) -> list[PluginFailed]:
        """Deactivate and clean up, one after another; what has been raised."""
        errors: list[PluginFailed | None] = []
        for loaded in leaving:
            loaded.state = "leaving"
            await loaded.idle(self._closing_s)
            errors += [await self._end_stage(loaded, "deactivate"), await self._end_stage(loaded, "clean_up")]
            loaded.state, loaded.target = "registered", None
            self._order.remove(loaded)
        return [error for error in errors if error is not None]

    async def _end_stage(self, loaded: _Loaded, stage: str) -> PluginFailed | None:
        try:
            await self._run_hook(loaded, stage)
        except Exception as error:
            _LOG.exception("plugin %s, %s", loaded.plugin.name, stage)
            failed = PluginFailed(_said(loaded, stage, error), loaded.plugin.name, stage)
            failed.__cause__ = error
            return failed
        return None

    async def _run_hook(self, loaded: _Loaded, stage: str) -> None:
        known = {each.plugin.key: each for each in self._order}
        there = used(loaded.plugin, {key: each.plugin for key, each in known.items()})
        given = MappingProxyType({each.name: known[each.key].target for each in there})
        hook = loaded.plugin.hook(loaded.target, stage, given)
        if hook is None:
            return
        if inspect.iscoroutinefunction(getattr(loaded.target, stage)):
            await hook()
            return
        result = await self._threads.run(f"{loaded.plugin.name}.{stage}", hook)
        if inspect.isawaitable(result):
            await result


@contextmanager
def _under_way(loaded: _Loaded) -> Iterator[None]:
    call = object()
    loaded.calls.add(call)
    try:
        yield
    finally:
        loaded.release(call)


def _said(loaded: _Loaded, stage: str, error: BaseException) -> str:
    plugin = loaded.plugin
    return (
        f"plugin '{plugin.name}' {plugin.version} failed to {stage.replace('_', ' ')}: {type(error).__name__}: {error}"
    )


def _failed(message: str, first: PluginFailed) -> PluginFailed:
    error = PluginFailed(message, first.plugin, first.stage)
    error.__cause__ = first
    return error
