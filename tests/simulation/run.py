"""One seed, one run: the same seed gives the same schedule, the same log to the byte, the same verdict.

python -m tests.simulation.run --seed 7 --verbose      replays one run and prints its schedule
python -m tests.simulation.run --seeds 1000 --from 1   runs many, prints the failing ones; exit 1 if there are any
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import NamedTuple

from tests.simulation.invariants import violations
from tests.simulation.workload import Workload
from tests.simulation.world import ANSWER_WITHIN_S, World

CHUNK = 50
SAID_EVERY = 1_000
PATIENCE_S = 20_000.0
"""How long a run may take, in its own time, before it is said to hang."""


class Verdict(NamedTuple):
    """How a run ended. `digest` is of the whole log and schedule; `violations` is empty if all is well."""

    seed: int
    digest: str
    facts: int
    violations: list[str]

    def __str__(self) -> str:
        said = "".join(f"\n    {sentence}" for sentence in self.violations)
        return f"seed {self.seed}: python -m tests.simulation.run --seed {self.seed} --verbose{said}"


def run(seed: int, make: Callable[..., World] = World, *, verbose: bool = False) -> Verdict:
    """Run one seed in a world of its own."""
    world = make(seed, verbose=verbose)
    workload = Workload(world)
    found: list[str] = []
    gc_was_on = gc.isenabled()
    gc.disable()  # What it collects, and when, depends on what ran before.
    try:
        world.loop.run(_live(world, workload, found))
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
    finally:
        if gc_was_on:
            gc.enable()
    return Verdict(seed, _digest(world), world.recorder.max_notification_id() or 0, found)


async def _live(world: World, workload: Workload, found: list[str]) -> None:
    supervisor = asyncio.ensure_future(world.supervise())
    others = [asyncio.ensure_future(going_on) for going_on in (world.disturb(), workload.operate())]
    judged = asyncio.ensure_future(_until_judged(world, workload))
    try:
        await asyncio.wait((supervisor, judged), return_when=asyncio.FIRST_COMPLETED)
        found += judged.result() if judged.done() else supervisor.result()
    finally:
        for node in world.nodes:
            await world.loop.bury(node)
        rest = [task for task in world.loop.world_tasks if task is not asyncio.current_task()]
        for task in (*others, *rest):
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _until_judged(world: World, workload: Workload) -> list[str]:
    async with asyncio.timeout(PATIENCE_S):
        await workload.run()
        await world.until_replaced()
        world.faults.healed = True
        await asyncio.sleep(2 * ANSWER_WITHIN_S)  # The last that was late has arrived.
        await workload.resume_all()
        await world.until_quiet(workload.tend_parked)
    return violations(world, workload)


def _digest(world: World) -> str:
    digest = blake2b(world.trace.getvalue().encode(), digest_size=16)
    for event in world.recorder._stored_events:
        digest.update(repr((event.originator_id, event.originator_version, event.topic)).encode())
        digest.update(event.state)
    return digest.hexdigest()


def run_all(seeds: Iterable[int]) -> list[Verdict]:
    """The verdicts on many seeds."""
    logging.disable(logging.CRITICAL)  # Faults are what it is about.
    try:
        return [run(seed) for seed in seeds]
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    parser = argparse.ArgumentParser(description="Deterministic simulation of the engine.")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--verbose", action="store_true", help="with --seed: print the schedule and the log messages")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many to run")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"expected at least one seed, got --seeds {given.seeds}")
    if given.seed is not None:
        if given.verbose:
            logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
        else:
            logging.disable(logging.CRITICAL)
        verdict = run(given.seed, verbose=given.verbose)
        print(f"seed {verdict.seed}: {verdict.facts} facts, digest {verdict.digest}")
        print("\n".join(verdict.violations) or "all is well")
        return bool(verdict.violations)
    return _run_many(range(given.first, given.first + given.seeds))


def _run_many(seeds: range) -> int:
    """Run them in as many processes as there are cores, and say now and then how far all is well."""
    begun = time.monotonic()
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    failed, facts, done = 0, 0, 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for verdicts in pool.imap(run_all, chunks):
            for verdict in verdicts:
                facts += verdict.facts
                if verdict.violations:
                    failed += 1
                    print(verdict, flush=True)
            done += len(verdicts)
            if done % SAID_EVERY == 0 or done == len(seeds):
                took_s = time.monotonic() - begun
                print(
                    f"seeds {seeds[0]} to {seeds[done - 1]}: {failed} failed, {facts:,} facts, {took_s:.0f} s",
                    flush=True,
                )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
