"""A prune killed at any moment: each instance is in the store or in an archive, and nothing is in neither."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from statewright.adapters.cli.archive import ArchivedInstance, read_archive
from statewright.engine import Engine, InstanceFilter
from statewright.engine.verify import verify_store
from tests.engine.charts import COUNTER

pytestmark = pytest.mark.integration

INSTANCES = 1_000
TIMEOUT_S = 60.0


def command(store: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "statewright.adapters.cli", "store", *arguments, "--json", "--store", store]


def run(store: str, *arguments: str) -> dict[str, int]:
    done = subprocess.run(command(store, *arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


async def filled(store: str) -> None:
    async with Engine.open(store, charts=[COUNTER]) as engine:
        for number in range(INSTANCES):
            await engine.start("counter", id=f"c-{number}")
            await engine.send(f"c-{number}", "stop")


def archived(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {line.row["id"] for line in read_archive(str(path)) if isinstance(line, ArchivedInstance)}


async def stored(store: str) -> set[str]:
    async with Engine.open(store, read_only=True) as engine:
        return {row.id for row in await engine.list(InstanceFilter(limit=2 * INSTANCES))}


def prune_until_killed(store: str, path: Path, bytes_min: int) -> None:
    """SIGKILL once the archive has more than `bytes_min` bytes."""
    deadline = time.monotonic() + TIMEOUT_S
    arguments = command(store, "prune", "--older-than", "0s", "--archive", str(path))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (path.exists() and path.stat().st_size > bytes_min):
            assert time.monotonic() < deadline, f"expected more than {bytes_min} bytes in {path}"
        process.send_signal(signal.SIGKILL)
        process.communicate()


async def test_killed_again_and_again(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    await filled(store)
    everything = await stored(store)
    assert len(everything) == INSTANCES
    paths = [tmp_path / f"{number}.jsonl.gz" for number in range(5)]
    for path, bytes_min in zip(paths[:-1], (0, 2_000, 5_000, 1), strict=True):
        await asyncio.to_thread(prune_until_killed, store, path, bytes_min)
        left = await stored(store)
        assert left | set().union(*map(archived, paths)) == everything
        assert verify_store(store).differences == []
    run(store, "prune", "--older-than", "0s", "--archive", str(paths[-1]))
    assert await stored(store) == set()
    assert set().union(*map(archived, paths)) == everything
    restored = sum(run(store, "restore", str(path))["restored"] for path in paths if path.exists())
    assert restored == INSTANCES
    assert await stored(store) == everything
    found = verify_store(store)
    assert (found.differences, found.pruned) == ([], 0)
