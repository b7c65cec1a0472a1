"""An engine on the store given whose instances invoke children one after another; for the family kill test.

It starts those instances that are not there yet, and runs until it is told to end, or killed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from statewright.engine import Engine
from statewright.engine.calls import EffectCall
from statewright.statecharts import load_chart

FAMILY = Path(__file__).with_name("family.yaml")


async def main(url: str, count: int, performed: Path) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with performed.open("a") as file:
        async with Engine.open(url, charts=[load_chart(FAMILY)]) as engine:

            @engine.handler("work")
            async def work(call: EffectCall) -> int:
                file.write(f"{call.effect_id}\n")
                file.flush()
                return int(call.data)

            print("ready", flush=True)
            await asyncio.gather(*(engine.start("family", id=f"f-{n:03}") for n in range(count)))
            await ended.wait()


if __name__ == "__main__":
    print("loaded", flush=True)
    sys.stdin.readline()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
