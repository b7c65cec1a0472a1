"""A real PostgreSQL server for tests: its own data directory, loopback, a random port, a password.

`shared_server()` is one for all tests of a process; `PostgresServer` one that a test may stop, restart and kill. The
server is not to outlive its tests: it dies with this process, however that dies.
"""

from __future__ import annotations

import atexit
import functools
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import psycopg
import pytest

USER, PASSWORD = "statewright", "s3cret-pass"
START_S = 30.0
_SETTINGS = {
    # A crash of the machine is not what these tests are about; one of the server loses nothing by this.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "fatal",
}


def program(name: str) -> str:
    """The path of a PostgreSQL program; skips the test if there is none."""
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no '{name}' in PATH or /usr/lib/postgresql")
    return found


class PostgresServer:
    """A server on a fresh data directory. `settings` beside those that make tests fast."""

    def __init__(self, **settings: str) -> None:
        self.settings = {**_SETTINGS, **settings}
        self.folder = Path(tempfile.mkdtemp(prefix="statewright-postgres-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._as_user = _as_other_user(self.folder)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._initdb(password)

    def _initdb(self, password: Path) -> None:
        arguments = ["-D", str(self.folder / "data"), "-U", USER, "-A", "scram-sha-256", "--pwfile", str(password)]
        done = subprocess.run(
            [*self._as_user, program("initdb"), *arguments, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD, options: str = "") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}{options}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it answers; on the same port as before."""
        self.port = self.port or _free_port()
        settings = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [*self._as_user, program("postgres"), "-D", str(self.folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log").read_text(errors="replace")
                    raise AssertionError(f"PostgreSQL does not start: {error}\n{said}") from error
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once, orderly; SIGQUIT: at once, as in a crash. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_schema_url(self) -> str:
        """The URL of a fresh, empty schema."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.url(options=f"?options=-csearch_path%3D{name}")

    def new_database(self) -> str:
        """The name of a fresh, empty database."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name


@functools.cache
def shared_server() -> PostgresServer:
    """One for all tests of this process."""
    server = PostgresServer()
    atexit.register(server.close)
    server.start()
    return server


def new_url() -> str:
    """The URL of a fresh, empty schema on the shared server (a database takes a second to make, a schema none)."""
    return shared_server().new_schema_url()


def _as_other_user(folder: Path) -> list[str]:
    """How a program is started that refuses to run as root; `folder` is then that user's. Dies with this process."""
    setpriv = shutil.which("setpriv")
    with_us = [setpriv, "--pdeathsig", "QUIT"] if setpriv else []
    if os.geteuid() != 0:
        return with_us
    if setpriv is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to become somebody else")
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [*with_us, "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
