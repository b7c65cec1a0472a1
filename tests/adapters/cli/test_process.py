"""The console script as a process: how it starts, and how it ends when its reader or its user goes away."""

from __future__ import annotations

import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli

SCRIPT = str(Path(sysconfig.get_path("scripts")) / "statewright")


def test_help_imports_nothing_that_takes_long() -> None:
    """`--help` is to take under 0.3 s: the measure that doesn't depend on the machine is what it imports."""
    code = (
        "import sys; from statewright.adapters.cli.main import run; code = run(['--help']);"
        "print(sorted(n for n in ('msgspec', 'eventsourcing', 'transitions', 'nats', 'cel_expr_python', 'asyncio',"
        " 'rich.markdown') if n in sys.modules), code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: statewright COMMAND" in result.stdout
    assert result.stdout.splitlines()[-1] == "[] 0"


def test_every_command_has_help(cli: Cli) -> None:
    listed = cli("--help").out
    names = "demo check simulate render serve start send status list history replay pause resume cancel metrics"
    commands = names.split()
    positions = [listed.index(f"│ {name} ") for name in commands]
    assert positions == sorted(positions)
    for name in commands:
        result = cli(name, "--help")
        assert (result.code, result.err) == (0, "")
        assert "--store" in result.out


def test_the_script_runs_and_its_version_is_the_package_s() -> None:
    result = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0.1.0"


@pytest.mark.parametrize("arguments", [["history", "d-17", "--json"], ["history", "d-17"], ["metrics"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(started: Cli, arguments: list[str]) -> None:
    """As in `statewright history d-17 | head -1`."""
    for _ in range(3):
        started("send", "d-17", "nothing")
    process = subprocess.Popen([SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("arguments", [["status", "d-17"], ["list", "--json"], ["--help"]])
def test_closed_streams_are_no_error(started: Cli, arguments: list[str]) -> None:
    """As in `statewright status d-17 >&- 2>&-`, or in a service whose manager gives it none."""
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", SCRIPT, *arguments], check=False)
    assert done.returncode == 0


@pytest.mark.integration
def test_an_interrupt_is_one_line(started: Cli) -> None:
    """A command that waits for an answer, interrupted: 130, as shells have it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [SCRIPT, "--nats", url, "send", "d-17", "submit"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with silent.accept()[0]:  # It is connected, and waits.
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"statewright: interrupted\n")
