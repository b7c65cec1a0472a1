"""The lifecycle of plugins: in order, undone if one fails, and taken away or replaced while the others go on."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from statewright.adapters.plugins import (
    PluginDependencyNotSatisfied,
    PluginExists,
    PluginFailed,
    PluginInUse,
    PluginNotActive,
    PluginNotFound,
    Plugins,
)

Log = list[str]


def plugin(
    log: Log,
    name: str,
    *needs: str,
    version: str = "1",
    fails: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> type:
    """One that notes its lifecycle in `log`, as coroutines and plain functions by turns, and raises in `fails`."""

    def note(stage: str) -> None:
        log.append(f"{name} {stage}")
        if stage in fails:
            raise RuntimeError(f"no {stage} today")

    class Made:
        async def initialise(self, dependencies: Any) -> None:
            self.needs = dict(dependencies)
            note("initialise")

        def activate(self) -> None:
            note("activate")

        async def deactivate(self) -> None:
            note("deactivate")

        def clean_up(self) -> None:
            note("clean_up")

        def who(self) -> list[str]:
            return [name, version, *sorted(self.needs)]

    for key, value in {
        "name": name,
        "version": version,
        "dependencies": needs,
        "optional_dependencies": optional,
    }.items():
        setattr(Made, key, value)
    return Made


def stages(name: str, *which: str) -> Log:
    return [f"{name} {stage}" for stage in which]


UP = ("initialise", "activate")
DOWN = ("deactivate", "clean_up")


async def test_up_in_order_down_in_reverse() -> None:
    log: Log = []
    async with Plugins([plugin(log, "c", "b"), plugin(log, "b", "a"), plugin(log, "a")]) as plugins:
        assert log == stages("a", *UP) + stages("b", *UP) + stages("c", *UP)
        assert await plugins.invoke("c", "who") == ["c", "1", "b"]
        assert [each.state for each in plugins.info()] == ["active"] * 3
        log.clear()
    assert log == stages("c", *DOWN) + stages("b", *DOWN) + stages("a", *DOWN)
    with pytest.raises(PluginNotActive, match="plugin 'c' is registered, but not active yet"):
        await plugins.invoke("c", "who")


async def test_nothing_is_called_if_something_is_missing() -> None:
    log: Log = []
    plugins = Plugins([plugin(log, "a"), plugin(log, "b", "x >= 2")])
    with pytest.raises(PluginDependencyNotSatisfied, match="plugin 'b' wants 'x >= 2', there is none"):
        await plugins.start()
    assert log == []


async def test_what_is_optional_and_missing_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "statewright.plugins")
    async with Plugins([plugin([], "a", optional=("ocr", "b")), plugin([], "b")]) as plugins:
        assert await plugins.invoke("a", "who") == ["a", "1", "b"]
        assert plugins.info()[0].warnings == ("goes without 'ocr': there is none",)
    assert caplog.messages == ["plugin a goes without 'ocr': there is none"]


@pytest.mark.parametrize(
    ("fails", "own"), [("initialise", ["initialise"]), ("activate", ["initialise", "activate", "clean_up"])]
)
async def test_if_one_fails_those_before_it_are_undone_in_reverse(fails: str, own: list[str]) -> None:
    log: Log = []
    plugins = Plugins([plugin(log, "a"), plugin(log, "b", "a"), plugin(log, "c", "b", fails=(fails,))])
    with pytest.raises(PluginFailed) as caught:
        await plugins.start()
    assert str(caught.value) == (
        f"plugin 'c' 1 failed to {fails}: RuntimeError: no {fails} today; deactivated and cleaned up: b, a"
    )
    assert (caught.value.plugin, caught.value.stage, caught.value.undone) == ("c", fails, ("b", "a"))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert log[4:] == stages("c", *own) + stages("b", *DOWN) + stages("a", *DOWN)
    assert [each.state for each in plugins.info()] == ["registered"] * 3


async def test_a_class_that_cannot_be_made_fails_to_initialise() -> None:
    class Broken:
        name, version = "broken", "1"

        def __init__(self) -> None:
            raise OSError("no disk")

    with pytest.raises(PluginFailed, match="'broken' 1 failed to initialise: OSError: no disk"):
        await Plugins([Broken]).start()


async def test_what_fails_while_undoing_is_told_and_does_not_hold_up_the_others() -> None:
    log: Log = []
    plugins = Plugins(
        [plugin(log, "a"), plugin(log, "b", "a", fails=("deactivate",)), plugin(log, "c", "b", fails=("activate",))]
    )
    with pytest.raises(PluginFailed, match="deactivated and cleaned up: b, a; plugin 'b' 1 failed to deactivate: Runt"):
        await plugins.start()
    assert log[-4:] == stages("b", *DOWN) + stages("a", *DOWN)


async def test_closing_goes_on_when_one_fails_and_says_so() -> None:
    log: Log = []
    plugins = Plugins([plugin(log, "a"), plugin(log, "b", "a", fails=("deactivate", "clean_up"))])
    await plugins.start()
    with pytest.raises(PluginFailed, match=r"'b' 1 failed to deactivate: .*; plugin 'b' 1 failed to clean up: "):
        await plugins.close()
    assert log[-4:] == stages("b", *DOWN) + stages("a", *DOWN)
    await plugins.close()
    assert len(log) == 8


async def test_starting_is_undone_when_it_is_cancelled() -> None:
    log: Log = []
    waiting = asyncio.Event()

    class Slow:
        name, version, dependencies = "slow", "1", ("a",)

        async def activate(self) -> None:
            waiting.set()
            await asyncio.Event().wait()

        def clean_up(self) -> None:
            log.append("slow clean_up")

    plugins = Plugins([plugin(log, "a"), Slow])
    starting = asyncio.create_task(plugins.start())
    await waiting.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert log == [*stages("a", *UP), "slow clean_up", *stages("a", *DOWN)]


async def test_starting_again_activates_what_came_since_and_undoes_only_that() -> None:
    log: Log = []
    async with Plugins([plugin(log, "a")]) as plugins:
        plugins.register(plugin(log, "b", "a"))
        await plugins.start()
        assert log == stages("a", *UP) + stages("b", *UP)
        plugins.register(plugin(log, "c", "a", fails=("activate",)))
        with pytest.raises(PluginFailed) as caught:
            await plugins.start()
        assert caught.value.undone == ()
        assert await plugins.invoke("b", "who") == ["b", "1", "a"]


async def test_a_name_is_registered_once() -> None:
    plugins = Plugins([plugin([], "document-parser")])
    with pytest.raises(PluginExists, match=r"plugin 'document_parser' 2 from .* there is 'document-parser' 1 from"):
        plugins.register(plugin([], "document_parser", version="2"))


async def test_nothing_is_taken_away_or_replaced_while_others_depend_on_it() -> None:
    log: Log = []
    async with Plugins([plugin(log, "a"), plugin(log, "b", "a"), plugin(log, "c", optional=("a",))]) as plugins:
        for attempt in (plugins.unregister("a"), plugins.replace(plugin(log, "a", version="2"))):
            with pytest.raises(PluginInUse, match=r"while others depend on it: b, c$") as caught:
                await attempt
            assert caught.value.dependents == ("b", "c")
        assert log == stages("a", *UP) + stages("b", *UP) + stages("c", *UP)
        await plugins.unregister("b")
        await plugins.unregister("c")
        await plugins.unregister("a")
        assert log[6:] == stages("b", *DOWN) + stages("c", *DOWN) + stages("a", *DOWN)
        with pytest.raises(PluginNotFound):
            await plugins.unregister("a")
        assert plugins.info() == ()


async def test_a_replacement_is_active_before_the_old_one_goes() -> None:
    log: Log = []
    async with Plugins([plugin(log, "a"), plugin(log, "b")]) as plugins:
        log.clear()
        await plugins.replace(plugin(log, "b", "a", version="2"))
        assert log == stages("b", *UP, *DOWN)
        assert await plugins.invoke("b", "who") == ["b", "2", "a"]
        log.clear()
    assert log == stages("b", *DOWN) + stages("a", *DOWN)


@pytest.mark.parametrize(
    ("new", "error"),
    [
        ({"fails": ("activate",)}, PluginFailed),
        ({"needs": ("x",)}, PluginDependencyNotSatisfied),
    ],
)
async def test_a_replacement_that_fails_changes_nothing(new: dict[str, Any], error: type[Exception]) -> None:
    log: Log = []
    async with Plugins([plugin(log, "b")]) as plugins:
        with pytest.raises(error):
            await plugins.replace(plugin(log, "b", *new.pop("needs", ()), version="2", **new))
        assert await plugins.invoke("b", "who") == ["b", "1"]
        assert "b deactivate" not in log


class Slow:
    """Its methods end when they are told to."""

    name, version = "slow", "1"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.thread_begun = threading.Event()
        self.thread_may_end = threading.Event()
        self.log: Log = []

    async def wait(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        self.log.append("end")
        return "done"

    def wait_in_thread(self) -> str:
        self.thread_begun.set()
        self.thread_may_end.wait(30)
        self.log.append("end")
        return "done"

    def deactivate(self) -> None:
        self.log.append("deactivate")


async def test_calls_under_way_are_waited_for_and_no_new_ones_begin() -> None:
    slow = Slow()
    async with Plugins([slow]) as plugins:
        call = asyncio.create_task(plugins.invoke("slow", "wait"))
        await slow.begun.wait()
        going = asyncio.create_task(plugins.unregister("slow"))
        await asyncio.sleep(0)
        assert not plugins.is_active("slow")
        with pytest.raises(PluginNotActive, match="plugin 'slow' is about to go"):
            await plugins.invoke("slow", "wait")
        assert slow.log == []
        slow.may_end.set()
        await going
        assert await call == "done"
    assert slow.log == ["end", "deactivate"]


async def test_a_thread_is_waited_for_even_if_its_caller_is_gone() -> None:
    slow = Slow()
    async with Plugins([slow]) as plugins:
        call = asyncio.create_task(plugins.invoke("slow", "wait_in_thread"))
        await asyncio.to_thread(slow.thread_begun.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        going = asyncio.create_task(plugins.unregister("slow"))
        await asyncio.sleep(0)
        assert not plugins.is_active("slow")
        assert slow.log == []
        slow.thread_may_end.set()
        await going
    assert slow.log == ["end", "deactivate"]


async def test_what_does_not_end_is_waited_for_a_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    plugins = Plugins([slow], closing_s=0.01)
    await plugins.start()
    call = asyncio.create_task(plugins.invoke("slow", "wait"))
    await slow.begun.wait()
    await plugins.close()
    assert slow.log == ["deactivate"]
    assert "plugin slow goes with 1 calls that have not ended within 0.01 s" in caplog.messages
    slow.may_end.set()
    assert await call == "done"


async def test_plain_functions_run_a_bounded_number_at_once() -> None:
    most = running = 0
    lock = threading.Lock()

    class Counting:
        name, version = "counting", "1"

        def __init__(self) -> None:
            self.both = threading.Barrier(2, timeout=30)

        def count(self) -> None:
            nonlocal most, running
            with lock:
                running += 1
                most = max(most, running)
            self.both.wait()
            with lock:
                running -= 1

    async with Plugins([Counting], threads_max=2) as plugins:
        await asyncio.gather(*(plugins.invoke("counting", "count") for _ in range(8)))
    assert most == 2
