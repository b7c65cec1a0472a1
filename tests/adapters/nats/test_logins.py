"""Logging in: each way against a real server that demands it, and what is said when it doesn't work."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import Endpoint, NatsOptions, find_endpoint
from statewright.engine import Engine
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.redaction import redacted
from statewright.statecharts.errors import StatewrightError
from tests.adapters.nats import secured
from tests.adapters.nats.support import LIGHT, store_in

JETSTREAM = 'jetstream { store_dir: "STORE" }\n'
SECRET = "s3cret-w0rd"
QUICK = 1.0


async def works(folder: Path, options: NatsOptions | str) -> None:
    """An engine serves with these options, and what finds it by its endpoint file gets through."""
    async with Engine.open(store_in(folder), charts=[LIGHT], nats=options):
        found = find_endpoint(folder / "store.db.endpoint")
        assert found is not None
        async with await Client.connect(found) as client:
            await client.start("light", {"limit": 3}, id="l-1")
            assert (await client.send("l-1", "toggle")).kind == "recorded"
        assert (folder / "store.db.endpoint").stat().st_mode & 0o077 == 0


async def refused(options: NatsOptions | str, caplog: pytest.LogCaptureFixture) -> str:
    """What is said instead of a connection; the secret is in none of it."""
    with pytest.raises(StatewrightError) as error:
        await Client.connect(options, connect_timeout_s=QUICK)
    for said in (
        str(error.value),
        repr(error.value),
        repr(options) if not isinstance(options, str) else "",
        caplog.text,
    ):
        assert SECRET not in said
    return str(error.value)


async def test_user_and_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    config = f'{JETSTREAM}authorization {{ user: ann, password: "{SECRET}" }}\n'
    async with secured.server(tmp_path, config) as address:
        await works(tmp_path, f"nats://ann:{SECRET}@{address}")
        await works(tmp_path, NatsOptions(f"nats://{address}", user="ann", password=SECRET))
        said = await refused(f"nats://ann:{SECRET}x@{address}", caplog)
        assert f"the nats-server at nats://{address} refuses user 'ann' with this password" in said
        said = await refused(f"nats://{address}", caplog)
        assert "refuses to be used without a login" in said


async def test_token(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async with secured.server(tmp_path, f'{JETSTREAM}authorization {{ token: "{SECRET}" }}\n') as address:
        await works(tmp_path, f"nats://{SECRET}@{address}")
        assert "refuses this token" in await refused(NatsOptions(f"nats://{address}", token=f"{SECRET}x"), caplog)
        monkeypatch.setenv("STATEWRIGHT_NATS_TOKEN", SECRET)
        await works(tmp_path, f"nats://{address}")


async def test_nkey(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known, stranger = secured.user_nkey(), secured.user_nkey()
    for name, pair in (("known", known), ("stranger", stranger)):
        (tmp_path / name).write_text(f"{pair.seed}\n")
    (tmp_path / "junk").write_text(SECRET)
    async with secured.server(tmp_path, f"{JETSTREAM}authorization {{ users: [{{ nkey: {known.public} }}] }}\n") as at:
        await works(tmp_path, NatsOptions(f"nats://{at}", nkey=str(tmp_path / "known")))
        said = await refused(NatsOptions(f"nats://{at}", nkey=str(tmp_path / "stranger")), caplog)
        assert f"refuses the nkey file '{tmp_path / 'stranger'}'" in said
        assert stranger.seed not in said + caplog.text
        said = await refused(NatsOptions(f"nats://{at}", nkey=str(tmp_path / "junk")), caplog)
        assert "to hold a user's seed" in said


async def test_creds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = secured.Operator(), secured.Operator()
    async with secured.server(tmp_path, JETSTREAM + ours.config) as address:
        await works(tmp_path, NatsOptions(f"nats://{address}", creds=str(ours.creds(tmp_path / "engine.creds"))))
        stranger = theirs.creds(tmp_path / "stranger.creds")
        said = await refused(NatsOptions(f"nats://{address}", creds=str(stranger)), caplog)
        assert f"refuses the creds file '{stranger}'" in said
        (tmp_path / "seed only").write_text(secured.user_nkey().seed)
        said = await refused(NatsOptions(f"nats://{address}", creds=str(tmp_path / "seed only")), caplog)
        assert "to hold a user's JWT and seed" in said


async def test_tls_with_certificates_on_both_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, other = secured.Authority(tmp_path), secured.Authority(tmp_path, "other")
    certificate, key = authority.issue("server")
    cert, cert_key = authority.issue("client")
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority.ca}", verify: true }}\n'
    ca = str(authority.ca)
    async with secured.server(tmp_path, JETSTREAM + config) as address:
        url = f"tls://{address}"
        await works(tmp_path, NatsOptions(url, ca=ca, cert=str(cert), key=str(cert_key)))
        await works(tmp_path, NatsOptions(f"nats://{address}", ca=ca, cert=str(cert), key=str(cert_key)))
        assert "no TLS connection" in await refused(NatsOptions(url, ca=str(other.ca)), caplog)
        assert "no TLS connection" in await refused(url, caplog), "the system does not know this authority"
        without = await refused(NatsOptions(url, ca=ca), caplog)
        assert address in without


async def test_tls_is_not_given_up_for_a_server_that_offers_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody in between could say so, to be told the password."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pretend() -> None:
            listener.settimeout(QUICK)
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b'INFO {"server_id":"X","version":"2.12.0","max_payload":1048576}\r\n')
                    connection.settimeout(QUICK)
                    try:
                        heard.extend(connection.recv(4_096))
                    except OSError:
                        continue

        thread = threading.Thread(target=pretend)
        thread.start()
        url = f"tls://ann:{SECRET}@127.0.0.1:{listener.getsockname()[1]}"
        assert "the server offers no TLS" in await refused(url, caplog)
        thread.join()
    assert bytes(heard) == b""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            NatsOptions("nats://x", creds="/nowhere/a.creds"),
            "expected the NATS creds file '/nowhere/a.creds' to be readable",
        ),
        (NatsOptions("nats://x", user="ann", token="t"), "expected one way to log in .* got user and token"),
        (NatsOptions("nats://x", password=SECRET), "expected a user with the password"),
        (NatsOptions("nats://x", cert="/c"), "a TLS certificate and its key together"),
    ],
    ids=["missing", "two", "half", "cert"],
)
def test_options_that_can_not_be_meant(options: NatsOptions, expected: str) -> None:
    with pytest.raises(InvalidError, match=expected):
        Endpoint.of(options)
    assert SECRET not in repr(options)


def test_several_servers_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Endpoint.of("nats://ann:pw@a:1,nats://b")
    assert (found.servers, found.user, found.password) == (["nats://a:1", "nats://b:4222"], "ann", "pw")
    monkeypatch.setenv("STATEWRIGHT_NATS_USER", "bob")
    monkeypatch.setenv("STATEWRIGHT_NATS_PASSWORD", SECRET)
    assert Endpoint.of("nats://a").user == "bob"
    assert Endpoint.of("nats://ann:pw@a").password == "pw", "what is given counts before the environment"


def test_redaction() -> None:
    assert redacted("at nats://ann:pw@h:1, postgresql://u:p%40@h/db?password=x&a=1") == (
        "at nats://***@h:1, postgresql://***@h/db?password=***&a=1"
    )
    assert redacted("nothing to hide") == "nothing to hide"


async def test_the_command_line_takes_files_as_flags_and_secrets_from_the_environment(tmp_path: Path) -> None:
    config = f'{JETSTREAM}authorization {{ user: ann, password: "{SECRET}" }}\n'
    async with secured.server(tmp_path, config) as address:
        served = Engine.open(store_in(tmp_path), charts=[LIGHT], nats=f"nats://ann:{SECRET}@{address}")
        async with served:
            command = [sys.executable, "-m", "statewright.adapters.cli", "--nats", f"nats://{address}"]
            command += ["start", "light", "--context", '{"limit": 1}', "--id", "l-9"]
            login = {**os.environ, "STATEWRIGHT_NATS_USER": "ann", "STATEWRIGHT_NATS_PASSWORD": SECRET}
            ran = await asyncio.to_thread(
                subprocess.run, command, env=login, capture_output=True, text=True, timeout=30
            )
            assert (ran.returncode, ran.stderr) == (0, "")
            login["STATEWRIGHT_NATS_PASSWORD"] = f"{SECRET}-wrong"
            ran = await asyncio.to_thread(
                subprocess.run, command, env=login, capture_output=True, text=True, timeout=30
            )
            assert ran.returncode == 2
            assert "refuses user 'ann' with this password" in ran.stderr
            assert SECRET not in ran.stderr
            command[-2:] = ["--nats-creds", "/nowhere"]
            ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
            assert "creds file '/nowhere'" in ran.stderr


async def test_the_server_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnavailableError, match="no nats-server answers"):
        await Client.connect(f"nats://ann:{SECRET}@127.0.0.1:1", connect_timeout_s=QUICK)
    assert SECRET not in caplog.text
