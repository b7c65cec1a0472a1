"""All figures side by side, in one run, on one disk: `make bench`, or `python -m tests.benchmarks.run --help`.

Rates are events a second, latencies milliseconds. Every timed store is verified afterwards: rows = fold. Nothing here
asserts on time; the bars are printed beside what was measured. Where other work shares the cores, CPU time an event and
ratios within one run still mean something, rates don't.

What takes longer, or a process of its own, has its own command:

    python -m tests.benchmarks.memory     an idle instance; compiling a large chart
    python -m tests.benchmarks.cached     `statewright serve` with 10,000 cached instances
    python -m tests.benchmarks.stored     a million events stored beside a thousand
    python -m tests.benchmarks.workers    one and two workers on PostgreSQL
    python -m tests.benchmarks.sync       what it costs that nats-server syncs
    python -m tests.benchmarks.prune      pruning while the engine works
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import statistics
import tempfile
from pathlib import Path

import uvloop

from statewright.engine.redaction import redacted
from statewright.engine.verify import verify_store
from tests.benchmarks import exploring, postgres, raw_sqlite, workflows
from tests.benchmarks.direct import direct, url
from tests.benchmarks.doors import bare_pull, jetstream_door, request_door
from tests.benchmarks.loading import loading
from tests.benchmarks.step import print_table
from tests.benchmarks.timers import measure_timers
from tests.benchmarks.workload import Run, median_ratio

SENDERS = (1, 10, 100, 1_000)
DRAINS = 3
BATCHES = (1, 10, 100, 1_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each timed run")
    parser.add_argument("--folder", type=Path, help="where the stores are made (default: a temporary folder)")
    parser.add_argument("--many", type=int, default=200_000, help="instances in the large store of the load test")
    parser.add_argument("--backlog", type=int, default=20_000, help="events drained from JetStream")
    parser.add_argument(
        "--only",
        choices=("step", "check", "direct", "postgres", "doors", "loading", "timers", "workflows"),
        help="one part alone",
    )
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="statewright-bench-", dir=given.folder))
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}"
    )
    try:
        if given.only in (None, "step"):
            print("\nstep alone, in memory")
            print_table(rounds=5)
        if given.only in (None, "check"):
            print("\ncheck and testgen, bar 5 s for check")
            exploring.print_table(rounds=3)
        if given.only in (None, "direct"):
            measure_direct(folder, given.seconds)
        if given.only in (None, "postgres"):
            postgres.measure(given.seconds, check, shown)
        if given.only in (None, "doors"):
            measure_doors(folder, given.seconds, given.backlog)
        if given.only in (None, "loading"):
            measure_loading(folder, given.many)
        if given.only in (None, "timers"):
            for store in measure_timers(folder, given.seconds):
                check(store)
        if given.only in (None, "workflows"):
            for store in workflows.measure(folder):
                check(store)
    finally:
        shutil.rmtree(folder)


def measure_direct(folder: Path, seconds: float) -> None:
    print("\nthe limits: SQLite in WAL with synchronous=FULL, rows of the size of ours")
    raw = {batch: raw_sqlite.single_table(folder / f"raw-{batch}.db", batch, seconds) for batch in BATCHES}
    ours = {batch: raw_sqlite.our_statements(folder / f"ours-{batch}.db", batch, seconds) for batch in BATCHES}
    print(f"{'batch':>8} {'one table, rows/s':>20} {'our statements, events/s':>26}")
    for batch in BATCHES:
        print(f"{batch:>8} {raw[batch].rate:>20,.0f} {ours[batch].rate:>26,.0f}")
    print(f"raw single insert: p50 {raw[1].percentile_ms(50):.2f} ms, p99 {raw[1].percentile_ms(99):.2f} ms")

    print("\nEngine.send: events/s, with p50 and p99 of the acknowledgement in ms")
    print(f"{'senders':>8} {'document approval (CEL, timers, effects)':>42} {'two states, a Python guard':>32}")
    runs: dict[int, Run] = {}
    plain: dict[int, Run] = {}
    for senders in SENDERS:
        runs[senders] = asyncio.run(direct(folder, senders, seconds))
        plain[senders] = asyncio.run(direct(folder, senders, seconds, plain=True))
        print(f"{senders:>8} {shown(runs[senders]):>42} {shown(plain[senders]):>32}")
        check(url(folder, "document_approval", senders))
        check(url(folder, "switch", senders))
    for senders, most in ((100, 25_000), (1_000, 30_000)):
        bar = min(most, 0.25 * raw[senders].rate)
        for what, run in (("document approval", runs[senders]), ("two states", plain[senders])):
            of_table, of_ours = run.rate / raw[senders].rate, run.rate / ours[senders].rate
            print(f"{senders:,} senders, {what}: {run.rate:,.0f} events/s, bar {bar:,.0f}; ", end="")
            print(f"{of_table:.1%} of one table, {of_ours:.1%} of our statements (bar 50 %)")
    for percent, most in ((50, 2.5), (99, 3)):
        ratio = runs[1].percentile_ms(percent) / raw[1].percentile_ms(percent)
        print(f"1 sender: p{percent} is {ratio:.1f} times the raw insert's, bar {most}")


def measure_doors(folder: Path, seconds: float, backlog: int) -> None:
    print("\nrequests over NATS, bars 10,000 events/s and p50 1 ms at one sender")
    print(f"{'senders':>8} {'events/s':>12} {'p50 ms':>9} {'p99 ms':>9}   us of CPU an event")
    for senders in (1, 100, 400):
        served = uvloop.run(request_door(folder, senders, seconds))
        run, cpu = served.run, ", ".join(f"{name} {us:,.0f}" for name, us in served.cpu_us.items())
        print(f"{senders:>8} {run.rate:>12,.0f} {run.percentile_ms(50):>9.2f} {run.percentile_ms(99):>9.2f}   {cpu}")
        check(f"sqlite:///{folder}/requests-{senders}.db")
    print(f"JetStream, a backlog of {backlog:,}: events/s (us of CPU an event)")
    drained, bare = [], []
    for _ in range(DRAINS):
        bare.append(uvloop.run(bare_pull(folder, 200, backlog)))
        drained.append(uvloop.run(jetstream_door(folder, 200, backlog)))
        print("    bare {0[0]:,.0f} ({0[1]:.0f}), recorded {1[0]:,.0f} ({1[1]:.0f})".format(bare[-1], drained[-1]))
    ratio = median_ratio([one[0] for one in drained], [one[0] for one in bare])
    print(f"drained at {ratio:.0%} of the bare rate (medians of {DRAINS}), bar 35%")


def measure_loading(folder: Path, many: int) -> None:
    few_us, many_us = asyncio.run(loading(folder, 1_000, many, rounds=5))
    print(f"\nloading one instance: {statistics.median(few_us):.0f} us among 1,000, ", end="")
    print(f"{statistics.median(many_us):.0f} us among {many:,}; ratio {median_ratio(few_us, many_us):.2f}, bar 0.85")


def shown(run: Run) -> str:
    return f"{run.rate:,.0f} ({run.percentile_ms(50):.2f}, {run.percentile_ms(99):.2f})"


def check(store: str) -> None:
    """Rows = fold, or stop."""
    found = verify_store(store)
    if not found.is_true:
        raise SystemExit(f"{redacted(store)} is not true to itself: {found.differences[:5]}")
    print(f"         verified: {found.facts:,} facts of {found.instances:,} instances fold to their rows")


if __name__ == "__main__":
    main()
