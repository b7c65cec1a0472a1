"""A plugin that is served over NATS is a service like any other: found, chosen by instance, measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.adapters.nats.services import NatsServices
from statewright.adapters.plugins import serve_plugin
from statewright.adapters.services import Services
from statewright.engine import PermanentError
from statewright.engine.errors import UnavailableError
from tests.adapters.nats.support import known, raw, running_server
from tests.adapters.services.asking import asking

pytestmark = pytest.mark.integration


class Words:
    """Counts words."""

    name = "words"
    version = "1.2"

    def count(self, text: str) -> int:
        return len(text.split())

    def stumble(self) -> None:
        raise OSError("no disk")


async def test_a_served_plugin_is_a_service(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        raw(server.endpoint) as nc,
        raw(server.endpoint) as other,
        serve_plugin(nc, Words, metadata={"statewright-interfaces": "word-count"}),
        serve_plugin(other, Words, metadata={"statewright-interfaces": "word-count"}),
        await NatsServices.connect(server.endpoint) as bus,
    ):
        await known(nc)
        await known(other)
        services = Services(bus)
        await services.check()
        (info,) = services.list_services("word-count")
        assert (info.name, info.version, info.instances) == ("words", "1.2.0", 2)
        assert info.methods >= {"count", "stumble"}
        assert [await services.call(asking("word-count", "count", text="to be")) for _ in range(4)] == [2, 2, 2, 2]
        (metrics,) = services.metrics()
        assert [(instance.calls, instance.load) for instance in metrics.instances] == [(2, 0.0), (2, 0.0)]
        with pytest.raises(UnavailableError, match=r"words\.stumble answered 500: OSError: no disk"):
            await services.call(asking("words", "stumble"))
        with pytest.raises(PermanentError, match=r"words\.count answered 400: .*'text' is missing"):
            await services.call(asking("words", "count"))
        (metrics,) = services.metrics()
        assert (metrics.failures, metrics.refusals, metrics.circuit) == (1, 1, "closed")
