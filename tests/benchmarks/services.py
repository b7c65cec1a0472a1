"""What the service layer costs: calls a second, in this process and over NATS, and a look for many services.

python -m tests.benchmarks.services
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from statewright.adapters.nats.services import NatsServices
from statewright.adapters.services import Services
from statewright.engine import EffectCall
from tests.adapters.nats.micro import Answering, announce
from tests.adapters.nats.support import raw, running_server
from tests.adapters.services.asking import Instance, asking

CALLS = 5_000
TOGETHER = 50
INSTANCES = 200


async def main() -> None:
    services = Services()
    services.register("parser", Instance())
    await timed("local, one after another", CALLS, local(services, CALLS))
    with tempfile.TemporaryDirectory() as folder:
        await over_nats(Path(folder))


async def local(services: Services, count: int) -> None:
    for _ in range(count):
        await services.call(asking("parser", "who"))


async def over_nats(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(folder))
        nc = await stack.enter_async_context(raw(server.endpoint))
        for number in range(3):
            await announce(nc, "parser", Answering(f"p{number}"))
        bus = await stack.enter_async_context(await NatsServices.connect(server.endpoint))
        services = Services(bus)
        await services.check()
        effect = EffectCall("e", "i", "parser.who", "call", {}, 1)
        await timed("the bus alone, 50 at once", CALLS, together(lambda: bus.call(effect)))
        await timed("a chosen instance, 50 at once", CALLS, together(lambda: services.call(asking("parser", "who"))))
        for number in range(INSTANCES):
            await announce(nc, f"s{number}", Answering(f"i{number}"))
        await timed(f"a look that finds {INSTANCES} services", 1, services.check())
        await timed("the next look", 1, services.check())


async def together(call: object) -> None:
    async def some() -> None:
        for _ in range(CALLS // TOGETHER):
            await call()  # type: ignore[operator]

    await asyncio.gather(*(some() for _ in range(TOGETHER)))


async def timed(what: str, count: int, work: object) -> None:
    began = time.perf_counter()
    await work  # type: ignore[misc]
    took = time.perf_counter() - began
    each = f"{count / took:,.0f}/s" if count > 1 else f"{took * 1000:,.0f} ms"
    print(f"{what:40} {each:>12}")


if __name__ == "__main__":
    asyncio.run(main())
