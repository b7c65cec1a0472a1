"""The console script: registers the commands, runs one, and turns its end into an exit code.

Exit codes: 0 done, 1 the answer is no, 2 bad usage, not found or out of reach, 130 interrupted. An error is one line
on standard error, never a traceback; a reader that went away (`| head`) is no error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from cyclopts import App, CycloptsError, UnknownCommandError

from statewright.adapters.cli.options import options_last

DONE, REFUSED, FAILED, INTERRUPTED = 0, 1, 2, 130

_COMMANDS = (
    ("demo", "serve:demo", "Run the main job, whole: a document approval over NATS, killed half way."),
    ("check", "charts:check", "Look for faults in a chart without running it."),
    ("simulate", "charts:simulate", "Run a chart on a virtual clock, recording nothing."),
    ("render", "charts:render", "Print a chart as a diagram or in another form."),
    ("schema", "schema:schema", "Print the JSON Schema of a chart's YAML or JSON form, for editors."),
    ("plugins", "plugins:plugins", "List the plugins that are installed, and what is wrong with them."),
    ("testgen", "testgen:generate_tests", "Write tests that cover a chart's states, transitions and guards."),
    ("serve", "serve:serve", "Run the engine: NATS doors, timers, effects, projections."),
    ("health", "health:health", "Ask the engine whether it is ready: exit 0 or 1."),
    ("start", "commands:start", "Start an instance of a definition."),
    ("send", "commands:send", "Send an event to an instance."),
    ("status", "queries:status", "Show where an instance is."),
    ("steps", "steps:steps", "Show what the steps of a workflow's execution have come to."),
    ("list", "queries:list_", "List instances."),
    ("history", "queries:history", "Show every recorded fact of an instance."),
    ("replay", "queries:replay", "Show an instance as of then, and how it got there."),
    ("pause", "commands:pause", "Defer an instance's events and timers."),
    ("resume", "commands:resume", "Go on with a paused instance."),
    ("cancel", "commands:cancel", "End an instance from outside."),
    ("metrics", "queries:metrics", "Counts and durations by definition and state."),
    ("keygen", "keys:keygen", "Make a file of keys to encrypt a store with, or add a key to it."),
    ("reencrypt", "keys:reencrypt", "Encrypt everything in the store with the first key."),
)
_GROUPS = {
    "schedule": (
        "Start instances again and again, by a cron expression.",
        (
            ("add", "schedules:add", "Start an instance whenever a cron expression is due."),
            ("list", "schedules:list_", "List schedules."),
            ("remove", "schedules:remove", "Remove a schedule; what it has started goes on."),
            ("pause", "schedules:pause", "Start nothing until it is resumed."),
            ("resume", "schedules:resume", "Go on with the next due time."),
        ),
    ),
    "parked": (
        "What could not be understood or applied: look at it, retry it, drop it.",
        (
            ("list", "parked:list_", "List what is parked, the oldest first."),
            ("retry", "parked:retry", "Deliver what is parked once more, with the same identity."),
            ("drop", "parked:drop", "Remove what is parked for good."),
        ),
    ),
    "store": (
        "Look after the store: back it up, verify it, prune it.",
        (
            ("backup", "store:backup", "Copy the store to a new file, while it is in use."),
            ("verify", "store:verify", "Fold every instance and compare it with its rows."),
            ("prune", "store:prune", "Move instances that have ended to an archive."),
            ("restore", "store:restore", "Bring back what was pruned, while no engine runs."),
        ),
    ),
}
"""Commands of commands."""
_EPILOGUE = "Every command takes --store URL, --nats URL and --json, before or after its name."


def main() -> None:
    """The entry point of the console script."""
    _open_standard_streams()
    sys.exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Open on the null device what is closed (`>&-`): else the next file or socket would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number: this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115 (as long as the process)


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code. Output goes to `sys.stdout` and `sys.stderr`."""
    _forget_empty_variables()
    try:
        result = build_app()(
            options_last(arguments, _GROUPS), print_error=False, exit_on_error=False, result_action="return_value"
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else DONE
    except CycloptsError as error:
        return _complain(_usage(error), FAILED)
    except BrokenPipeError:
        # The interpreter flushes once more at its end: that must not fail, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SystemExit as end:
        # That is how rich takes it that its reader went away.
        if isinstance(end.__context__, BrokenPipeError):
            return DONE
        raise
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        return _failed(error)


def _forget_empty_variables() -> None:
    """An empty setting is one that is not set: so is a variable that a container's file mentions without a value."""
    for name in [name for name, value in os.environ.items() if name.startswith("STATEWRIGHT_") and not value]:
        del os.environ[name]


def build_app() -> App:
    """The commands, none of them imported yet."""
    app = App(
        name="statewright",
        help="A durable, event-sourced statechart engine.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=_version,
        suppress_keyboard_interrupt=False,
    )
    _add(app, _COMMANDS)
    for position, (group, (summary, commands)) in enumerate(_GROUPS.items(), start=len(_COMMANDS)):
        inner = App(name=group, help=summary, help_epilogue=_EPILOGUE, help_format="plaintext", sort_key=position)
        _add(inner, commands)
        app.command(inner)
    return app


def _add(app: App, commands: Sequence[tuple[str, str, str]]) -> None:
    for position, (name, path, summary) in enumerate(commands):
        app.command(f"statewright.adapters.cli.{path}", name=name, help=summary, sort_key=position)


def _version() -> str:
    from importlib.metadata import version

    return version("statewright")


def _failed(error: Exception) -> int:
    """Say what is wrong. What is no error of ours is a bug, but still one line; `STATEWRIGHT_DEBUG=1` shows where."""
    from statewright.statecharts.errors import StatewrightError

    if os.environ.get("STATEWRIGHT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, StatewrightError):
        # "Already exists" and "id reused" answer no to what was asked; all else could not be asked.
        return _complain(str(error), REFUSED if error.code in ("already_exists", "id_reused") else FAILED)
    if isinstance(error, OSError):
        return _complain(str(error), FAILED)
    return _complain(f"unexpected {type(error).__name__}: {error} (STATEWRIGHT_DEBUG=1 shows where)", FAILED)


def _usage(error: CycloptsError) -> str:
    if isinstance(error, UnknownCommandError):
        # Its own message would import every command to guess which one was meant.
        given = (error.unused_tokens or ["?"])[0]
        names = [*(name for name, _, _ in _COMMANDS), *_GROUPS]
        for _, commands in _GROUPS.values():
            names += [name for name, _, _ in commands if name not in names]
        close = get_close_matches(given, names, 1)
        meant = f" Did you mean '{close[0]}'?" if close else ""
        return f"unknown command or option '{given}'.{meant} See `statewright --help`."
    return f"{error} See `statewright --help`."


def _complain(message: str, code: int) -> int:
    from statewright.engine.redaction import redacted

    line: Any = redacted(" ".join(message.split()))
    print(f"statewright: {line}", file=sys.stderr)
    return code
