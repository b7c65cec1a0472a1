"""Pruning many instances: time and memory. `python -m tests.benchmarks.prune --instances 100000`."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from statewright.engine import Engine
from tests.engine.charts import COUNTER


async def fill(store: str, instances: int) -> None:
    """Each with a start, two additions and its end."""
    async with Engine.open(store, charts=[COUNTER]) as engine:
        for first in range(0, instances, 500):
            ids = [f"c-{number}" for number in range(first, min(first + 500, instances))]
            await asyncio.gather(*(engine.start("counter", id=one) for one in ids))
            for number in range(2):
                await asyncio.gather(*(engine.send(one, "add", number) for one in ids))
            await asyncio.gather(*(engine.send(one, "stop") for one in ids))


def timed(*arguments: str) -> None:
    """Run a command of the store; print what it said, its seconds, and its greatest resident memory."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "statewright.adapters.cli", "store", *arguments]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    print(f"  {arguments[0]}: {time.perf_counter() - begun:.1f} s, {usage.ru_maxrss / 1024:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    instances = parser.parse_args().instances
    with tempfile.TemporaryDirectory(prefix="statewright-prune-") as folder:
        store, archive = f"sqlite:///{folder}/store.db", f"{folder}/a.jsonl.gz"
        asyncio.run(fill(store, instances))
        print(f"{instances:,} ended instances, {Path(folder, 'store.db').stat().st_size / 2**20:,.0f} MB", flush=True)
        timed("backup", f"{folder}/copy.db", "--store", store)
        timed("prune", "--older-than", "0s", "--archive", archive, "--store", store)
        print(f"  archive: {Path(archive).stat().st_size / 2**20:.1f} MB", flush=True)
        timed("restore", archive, "--store", store)


if __name__ == "__main__":
    main()
