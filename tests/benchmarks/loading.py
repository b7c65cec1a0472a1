"""What loading one instance costs among few and among many stored ones."""

from __future__ import annotations

import random
import time
from pathlib import Path

from statewright.engine import Engine
from statewright.engine.residents import load_resident
from tests.benchmarks.workload import approval, percentile, start_many

LOADS = 500


async def loading(folder: Path, few: int, many: int, rounds: int) -> tuple[list[float], list[float]]:
    """Median microseconds of a load among `few` and among `many`, one pair a round, interleaved."""
    small, large = f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/many.db"
    for url, count in ((small, few), (large, many)):
        async with Engine.open(url, charts=[approval()], run_due=False) as engine:
            await start_many(engine, count)
    medians: tuple[list[float], list[float]] = ([], [])
    chosen = random.Random(7)
    async with (
        Engine.open(small, read_only=True) as few_engine,
        Engine.open(large, read_only=True) as many_engine,
    ):
        for _ in range(rounds):
            for engine, count, medians_of in ((few_engine, few, medians[0]), (many_engine, many, medians[1])):
                medians_of.append(_load(engine, [f"d-{chosen.randrange(count)}" for _ in range(LOADS)]))
    return medians


def _load(engine: Engine, ids: list[str]) -> float:
    taken = []
    for instance_id in ids:
        began = time.perf_counter()
        resident = load_resident(engine.log, engine.definitions, instance_id)
        taken.append(time.perf_counter() - began)
        if resident is None or resident.instance.sequence != 3:
            raise AssertionError(f"expected {instance_id} at sequence 3, got {resident}")
    return percentile(taken, 50) * 1e6
