"""The endpoint file: found, private, and passed over when it is stale."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from statewright.adapters.nats.endpoint import Endpoint, find_endpoint, remove_endpoint, write_endpoint
from statewright.engine.errors import InvalidError, UnavailableError
from tests.adapters.nats.support import free_port


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://localhost:4222", Endpoint("nats://localhost:4222")),
        ("nats://localhost", Endpoint("nats://localhost:4222")),
        ("localhost:4333", Endpoint("nats://localhost:4333")),
        ("nats://[::1]:4222/", Endpoint("nats://[::1]:4222")),
        ("tls://ann:s%40cret@example.org:1", Endpoint("tls://example.org:1", "ann", "s@cret")),
        ("nats://t0ken@example.org", Endpoint("nats://example.org:4222", token="t0ken")),
    ],
)
def test_urls(url: str, expected: Endpoint) -> None:
    assert Endpoint.from_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", "nats://", "http://x", "nats://x:port", "nats://x:99999", "nats://a b", "nats://x/y"]
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(InvalidError, match="expected a NATS URL"):
        Endpoint.from_url(url)


def test_secrets_stay_out_of_texts() -> None:
    assert "s3cret" not in repr(Endpoint.from_url("nats://ann:s3cret@x"))
    with pytest.raises(InvalidError) as caught:
        Endpoint.from_url("nats://ann:s3cret@x/path")
    assert "s3cret" not in str(caught.value)


def test_a_live_owner_is_found(tmp_path: Path) -> None:
    path = tmp_path / "app.db.endpoint"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(f"nats://127.0.0.1:{listener.getsockname()[1]}", "u", "p", pid=os.getpid())
        write_endpoint(path, endpoint)
        assert find_endpoint(path) == endpoint
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_endpoint(path) is None, "nobody listens any more"


def test_a_dead_owner_is_none(tmp_path: Path) -> None:
    path = tmp_path / "app.db.endpoint"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        write_endpoint(path, Endpoint(f"nats://127.0.0.1:{listener.getsockname()[1]}", pid=dead.pid))
        began = time.perf_counter()
        assert find_endpoint(path) is None
        assert time.perf_counter() - began < 0.5


def test_no_file_or_a_broken_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "app.db.endpoint"
    assert find_endpoint(path) is None
    path.write_text('{"url": 5')
    assert find_endpoint(path) is None


def test_only_ones_own_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.db.endpoint"
    write_endpoint(path, Endpoint(f"nats://127.0.0.1:{free_port()}", pid=os.getpid()))
    remove_endpoint(path, os.getpid() + 1)
    assert path.exists()
    remove_endpoint(path, os.getpid())
    assert not path.exists()
    remove_endpoint(path, os.getpid())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="can't be written"):
        write_endpoint(tmp_path / "nowhere" / "app.db.endpoint", Endpoint("nats://x:1"))
    assert list(tmp_path.iterdir()) == []
