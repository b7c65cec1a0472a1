"""The guide to a cluster, carried out: three servers as it says, an approval, one server killed in the middle."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from statewright.adapters.cli.loading import load_handlers
from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import Endpoint, NatsOptions
from statewright.engine import Engine
from statewright.engine.errors import UnavailableError
from statewright.statecharts import load_chart
from tests.adapters.nats import secured
from tests.adapters.nats.support import eventually, free_port, store_in

ROOT = Path(__file__).parents[3]
PASSWORD = "pa55-of-the-engine"


def configuration(number: int, ports: list[int], folder: Path, certificate: Path, key: Path, ca: Path) -> str:
    """The guide's text for one server, on loopback."""
    guide = (ROOT / "docs" / "nats-cluster.md").read_text()
    found = re.search(r"```\n(server_name: .*?)```", guide, re.DOTALL)
    assert found is not None
    text = found[1]
    for old, new in (
        ("server_name: nats-1\nhost: 0.0.0.0\nport: 4222\n", ""),  # The helper writes these.
        ("/etc/nats/server.pem", str(certificate)),
        ("/etc/nats/server.key", str(key)),
        ("/etc/nats/ca.pem", str(ca)),
        ("/var/lib/nats", str(folder / f"js-{number}")),
        ("$NATS_ENGINE_PASSWORD", f'"{PASSWORD}"'),
        ("$NATS_SHOP_PASSWORD", '"another"'),
        ("host: 0.0.0.0\n  port: 6222", f"host: 127.0.0.1\n  port: {ports[number]}"),
        *((f"nats-{at + 1}.example.org:6222", f"127.0.0.1:{port}") for at, port in enumerate(ports)),
    ):
        assert old in text, f"expected the guide to contain {old!r}"
        text = text.replace(old, new)
    return text


async def patiently(client: Client, name: str, data: dict[str, str]) -> str:
    """Send an event as one should: again, with the same id, until there is an answer."""

    async def answered() -> str:
        try:
            return (await client.send("d-1", name, data, event_id=name)).kind
        except UnavailableError:
            return ""

    return await eventually(answered, f"the answer to '{name}'")


async def test_an_approval_goes_through_while_one_of_three_servers_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # The handlers write where they are.
    monkeypatch.setenv("STATEWRIGHT_NATS_REPLICAS", "3")
    authority = secured.Authority(tmp_path)
    certificate, key = authority.issue("server")
    ports = [free_port() for _ in range(3)]
    async with AsyncExitStack() as stack:
        servers = {}
        for number in range(3):
            config = configuration(number, ports, tmp_path, certificate, key, authority.ca)
            process, address = await stack.enter_async_context(
                secured.server_process(tmp_path, config, f"nats-{number + 1}")
            )
            servers[f"tls://{address}"] = process
        options = NatsOptions(",".join(servers), "statewright", PASSWORD, ca=str(authority.ca))
        engine = await stack.enter_async_context(
            Engine.open(
                store_in(tmp_path), charts=[load_chart(ROOT / "examples/document_approval/chart.yaml")], nats=options
            )
        )
        load_handlers(f"{ROOT}/examples/document_approval/handlers.py:register")(engine)
        client = await stack.enter_async_context(await Client.connect(Endpoint.of(options)))
        js = client.connection.nc.jetstream()

        async def replicas() -> int:
            try:
                return (await js.stream_info("STATEWRIGHT_HISTORY")).config.num_replicas or 0
            except Exception:
                return 0

        assert await eventually(replicas, "the stream") == 3
        await client.start("document_approval", {"amount": 900}, id="d-1")
        assert await patiently(client, "submit", {"by": "ann"}) == "recorded"
        await eventually(lambda: _in(engine, "awaiting_approval"), "the review")

        used = engine.doors._connection.nc.connected_url.netloc
        servers[f"tls://{used.rpartition('@')[2]}"].kill()
        assert await patiently(client, "approve", {"by": "bob"}) in ("recorded", "duplicate")
        await eventually(lambda: _in(engine, "archived"), "the archive")
        count = (await engine.status("d-1")).sequence

        async def published() -> bool:
            try:
                return (await js.stream_info("STATEWRIGHT_HISTORY")).state.messages >= count
            except Exception:
                return False

        await eventually(published, "all facts in the stream")


async def _in(engine: Engine, state: str) -> bool:
    return f'"{state}"' in (await engine.status("d-1")).configuration
