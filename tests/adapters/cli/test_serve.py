"""A server runs in a process of its own, and commands go through it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.cli.conftest import Cli, Result

pytestmark = pytest.mark.integration

HANDLERS = """\
from pathlib import Path

async def notify(call):
    Path("notified").write_text(call.effect_id)
    return {"attempt": call.attempt}

def archive(call):
    return call.effect_id

HANDLERS = {"notify": notify}

def register(engine):
    engine.handler("notify")(notify)

WRONG = 5
"""
TIMEOUT_S = 30.0


@contextmanager
def served(*arguments: str, stop: signal.Signals = signal.SIGTERM) -> Iterator[dict[str, Any]]:
    """A server in the working directory; what it said when it was ready. It is to end with 0 and say no more, but for
    the warning that it can't see whether somebody else's nats-server syncs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "statewright.adapters.cli", "serve", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)
        process.send_signal(stop)
        out, err = process.communicate(timeout=TIMEOUT_S)
        said = [line for line in err.splitlines() if "--nats" not in arguments or "sync_interval: always" not in line]
        assert (out, said) == ("", [])
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(cli: Cli, arguments: list[str], text: str) -> Result:
    """Ask again until `text` is in the answer."""
    deadline = time.monotonic() + TIMEOUT_S
    while text not in (result := cli(*arguments)).out:
        assert time.monotonic() < deadline, f"expected {text!r} within {TIMEOUT_S:g} s, got {result}"
    return result


def test_commands_go_to_the_server_and_reads_are_not_stale(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with served("--chart", "chart.yaml", "--handlers", "handlers.py:HANDLERS") as ready:
        assert ready["definitions"] == ["approval"]
        assert ready["unhandled"] == []
        assert ready["nats"].startswith("nats://127.0.0.1:")

        started = cli("start", "approval", "--id", "d-17", "--context", '{"amount": 90}', "--json")
        assert started.lines == [{"id": "d-17", "sequence": 1, "configuration": ["draft"], "status": "active"}]
        sent = cli("send", "d-17", "submit", "--event-id", "e-1", "--json").lines[0]
        assert (sent["kind"], sent["configuration"]) == ("recorded", ["review", "first"])
        assert cli("send", "d-17", "submit", "--event-id", "e-1", "--json").lines[0]["kind"] == "duplicate"
        assert cli("metrics", "--json").lines[0]["states"]["first"]["now"] == 1
        assert cli("pause", "d-17", "--json").lines[0]["status"] == "paused"
        assert cli("resume", "d-17", "--json").lines[0]["status"] == "active"

        refused = cli("send", "d-17", "submit", "--json")
        assert (refused.code, refused.lines[0]["kind"]) == (1, "refused")
        assert cli("start", "approval", "--id", "d-17", "--context", '{"amount": 1}').code == 1
        assert cli("start", "nothing").code == cli("send", "d-18", "submit").code == 2

        until(cli, ["history", "d-17", "--json"], "done.effect.notify")
        assert (tmp_path / "notified").read_text() == "d-17-2-0"

        second = cli("serve")
        assert (second.code, second.out) == (2, "")
        assert f"owned by the process with pid {ready['pid']}" in second.err
        assert cli("metrics", "--rebuild").code == 2
    figures = cli("metrics", "--json")
    assert cli("metrics", "--rebuild", "--json") == figures


def test_a_stored_definition_is_served_again_without_its_chart(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with served("--chart", "chart.yaml", stop=signal.SIGINT) as ready:
        assert ready["unhandled"] == ["notify"]
        cli("start", "approval", "--id", "d-17", "--context", '{"amount": 90}')
        cli("send", "d-17", "submit")
    with served("--handlers", "handlers.py:register") as ready:
        assert (ready["definitions"], ready["unhandled"]) == (["approval"], [])
        until(cli, ["history", "d-17", "--json"], "done.effect.notify")
        assert cli("start", "approval", "--id", "d-18", "--context", '{"amount": 90}').code == 0


def test_a_killed_server_leaves_no_owner_behind(cli: Cli) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "statewright.adapters.cli", "serve", "--chart", "chart.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"serving approval from sqlite:///statewright.db on nats://127.0.0.1:")
    assert cli("start", "approval", "--id", "d-17", "--context", '{"amount": 90}').code == 0
    process.kill()
    process.communicate()
    assert cli("send", "d-17", "submit", "--json").lines[0]["sequence"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chart", "missing.yaml"], "missing.yaml"),
        (["--handlers", "handlers.py"], "expected --handlers module:attribute or file.py:attribute, got 'handlers.py'"),
        (["--handlers", "missing.py:HANDLERS"], "no handlers at 'missing.py:HANDLERS': there is no file missing.py"),
        (["--handlers", "handlers.py:notify"], "expected a function at 'handlers.py:notify' that registers handlers"),
        (["--handlers", "handlers.py:archive"], "'handlers.py:archive' can't be loaded: AttributeError"),
        (["--handlers", "handlers.py:NONE"], "no attribute 'NONE'"),
        (["--handlers", "handlers.py:WRONG"], "expected a mapping or a function at 'handlers.py:WRONG', got int"),
        (["--nats", "nats://127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_a_server_that_cannot_start_says_why(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    result = cli("serve", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_it_is_told_by_url_where_the_bus_is(cli: Cli, tmp_path: Path) -> None:
    """One nats-server for all: `--nats` for the engine, and for who talks to it without seeing its store."""
    from statewright.adapters.nats.server import EmbeddedServer

    async def scenario() -> None:
        server = await EmbeddedServer.start(tmp_path / "bus")
        endpoint = server.endpoint
        url = endpoint.url.replace("//", f"//{endpoint.user}:{endpoint.password}@")
        try:
            await asyncio.to_thread(drive, url)
        finally:
            await server.stop()

    def drive(url: str) -> None:
        with served("--chart", "chart.yaml", "--nats", url) as ready:
            assert endpoint_port(ready["nats"]) == endpoint_port(url)
            elsewhere = ("--store", "sqlite:///elsewhere.db", "--nats", url)
            assert cli("start", "approval", "--id", "d-17", "--context", '{"amount": 1}', *elsewhere).code == 0
            assert not (tmp_path / "elsewhere.db").exists()
            assert cli("send", "d-17", "submit").code == 0
        assert cli("send", "d-17", "next", "--nats", url).code == 2

    asyncio.run(scenario())


def endpoint_port(url: str) -> str:
    return url.rpartition(":")[2]
