"""`statewright demo`: the main job, whole. A document approval driven by events published over NATS, whose engine is
killed half way.

The engine runs as in production, in a process of its own (`statewright serve`, the embedded nats-server, a SQLite
store); this process is a client. Whatever the demo says, it has looked up; where something is not as
expected, it ends with exit code 1. Nothing is left behind but the store that was named with `--store`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from time import monotonic

from statewright.adapters.cli import output, queries
from statewright.adapters.cli.demo_story import Expected, Story
from statewright.adapters.cli.engine_process import EngineProcess
from statewright.adapters.cli.options import STORE_DEFAULT, Options
from statewright.statecharts.errors import StatewrightError

EXAMPLE = "statewright.examples.document_approval"
FAILED, TERMINATED = 1, 143
LISTED = 8
TIMEOUT_S = 60.0
"""It takes a few seconds; whatever hangs is an error."""


def run_demo(options: Options) -> int:
    """Run it. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="statewright-demo-") as name:
        folder = Path(name)
        started = monotonic()
        given = _given(options)
        try:
            asyncio.run(_demo(given if given.store else replace(given, store=f"sqlite:///{folder}/demo.db"), folder))
        except asyncio.CancelledError:
            print("statewright: terminated", file=sys.stderr)
            return TERMINATED
        except BrokenPipeError:
            raise  # Nobody reads on: that is no failure of the demo.
        except (Expected, StatewrightError, OSError, TimeoutError) as error:
            reason = str(error) or f"expected it to take less than {TIMEOUT_S:g} s"
            print(f"statewright: the demo failed: {output.clean(reason)}", file=sys.stderr)
            return FAILED
        seconds = monotonic() - started
    kept = f"the store is {given.store}" if given.store else "nothing is left behind"
    _say(options, "done", f"All of it in {seconds:.1f} s; {kept}.", seconds=round(seconds, 2))
    return 0


def _given(options: Options) -> Options:
    """The options as typed. What the environment says is meant for real work, in which a demo has no business."""
    store = "" if options.store in (STORE_DEFAULT, os.environ.get("STATEWRIGHT_STORE")) else options.store
    nats = None if options.nats == os.environ.get("STATEWRIGHT_NATS_URL") else options.nats
    return replace(options, store=store, nats=nats)


async def _demo(options: Options, folder: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    # This client is going to be disconnected, and has nothing to say about it.
    logging.getLogger("statewright").addHandler(logging.NullHandler())
    # In a store that is kept, each run has its own documents.
    prefix = "" if options.store.startswith(f"sqlite:///{folder}") else f"{secrets.token_hex(3)}-"
    engine = EngineProcess(
        options,
        folder,
        chart=str(files(EXAMPLE).joinpath("chart.yaml")),
        handlers=f"{EXAMPLE}.handlers:register",
        environment={"DOCUMENT_APPROVAL_FOLDER": str(folder)},
    )
    async with asyncio.timeout(TIMEOUT_S), engine:
        async with Story(options, engine, folder, prefix) as story:
            for number, (phase, tell) in enumerate(story.phases(), start=1):
                await _tell(options, number, phase, tell)
            await _show(options, story)
        code = await engine.stop()
    if code != 0:
        raise Expected(f"expected the engine to stop with exit code 0, got {code}")


async def _tell(options: Options, number: int, phase: str, tell: Callable[[], Awaitable[str]]) -> None:
    started = monotonic()
    text = await tell()
    _say(options, phase, text if options.json else f"{number}. {text}", seconds=round(monotonic() - started, 2))


def _say(options: Options, phase: str, text: str, **figures: object) -> None:
    if options.json:
        output.print_json({"phase": phase, "says": text, **figures})
    else:
        output.console().print(text, soft_wrap=not sys.stdout.isatty())
    sys.stdout.flush()


async def _show(options: Options, story: Story) -> None:
    """The read models, by the commands that show them."""
    with _titled(options, f"statewright history {story.costly}"):
        await queries.history(story.costly, options=options)
    with _titled(options, f"statewright list --limit {LISTED}"):
        await queries.list_(limit=LISTED, after=story.before_first, options=options)
    with _titled(options, "statewright metrics"):
        await queries.metrics(definition="document_approval", options=options)


@contextmanager
def _titled(options: Options, command: str) -> Iterator[None]:
    if not options.json:
        output.console().print(f"\n$ {command}", style="bold")
    yield
    sys.stdout.flush()
