"""Memory of `statewright serve` with 10,000 instances of the document approval in its cache.

    python -m tests.benchmarks.cached [--instances 10000] [--events 2]

The instances are under review, with a timer or two each; each gets `--events` more events through the request door, so
that all are in memory, with what they have recorded lately. The figure is the resident set of the whole process, all
libraries included; beside it what it was before the first event, and what the cache's limit of 0 leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
from tests.benchmarks.doors import credentials, prepared, serving
from tests.benchmarks.workload import APPROVAL_TURN

AT_ONCE = 200
BAR_MB = 150


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure(folder: Path, instances: int, events: int, residents_max: int) -> tuple[float, float]:
    """MB when ready, and after the events."""
    store = folder / f"cached-{residents_max}.db"
    ids = await prepared(store, instances)
    server = await EmbeddedServer.start(folder / f"nats-{residents_max}")
    try:
        arguments = ("--residents-max", str(residents_max))
        async with (
            serving(store, credentials(server), *arguments) as process,
            await Client.connect(server.endpoint, timeout_s=60) as client,
        ):
            before = resident_mb(process.pid)
            for turn in range(events):
                name, data = APPROVAL_TURN[turn % len(APPROVAL_TURN)]
                for first in range(0, len(ids), AT_ONCE):
                    page = ids[first : first + AT_ONCE]
                    await asyncio.gather(*(client.send(one, name, data, event_id=f"{turn}-{name}") for one in page))
            return before, resident_mb(process.pid)
    finally:
        await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=2, help="how many each gets")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="statewright-bench-"))
    try:
        for residents_max in (0, given.instances):
            before, after = asyncio.run(measure(folder, given.instances, given.events, residents_max))
            print(f"at most {residents_max:,} cached: {before:.0f} MB when ready, {after:.0f} MB after the events")
    finally:
        shutil.rmtree(folder)
    print(f"{after:.0f} MB with {given.instances:,} cached instances, bar {BAR_MB}")


if __name__ == "__main__":
    main()
