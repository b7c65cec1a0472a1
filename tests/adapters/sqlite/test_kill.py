"""A writer that is killed leaves whole transactions, all that it reported, and a store that opens at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from statewright.adapters.sqlite.store import SQLiteStore

ROOT = Path(__file__).parents[3]
KILLS = 5
BATCH = 20

WRITER = """
import sys
from eventsourcing.application import Application
from statewright.adapters.sqlite.store import SQLiteStore
from statewright.engine.recorder import Changes
from tests.contracts.rows import effect, event, inbox, instance, timer

store = SQLiteStore(sys.argv[1])
store.acquire()
application = Application(env=dict(store.environment))
recorder = application.recorder
batch = (recorder.max_notification_id() or 0) // {BATCH}
while True:
    batch += 1
    ids = [f"i-{number}" for number in range({BATCH})]
    recorder.insert_events(
        [event(id, batch, b"x" * 700) for id in ids],
        changes=Changes(
            inbox=[inbox(f"e-{batch}", instance_id=id, sequence=batch) for id in ids],
            instances=[instance(id, sequence=batch) for id in ids],
            timers_cleared=[(id, f"t-{batch - 1}") for id in ids],
            timers_set=[timer(f"t-{batch}", instance_id=id) for id in ids],
            effects_requested=[effect(0, instance_id=id, sequence=batch) for id in ids],
            effects_ended=[("done", "", f"{id}-{batch - 1}-0") for id in ids],
        ),
    )
    print(batch, flush=True)
""".replace("{BATCH}", str(BATCH))


def test_a_killed_writer_leaves_whole_transactions(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = 0
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITER, f"sqlite:///{path}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 4 * kill):
                acknowledged = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        assert acknowledged <= check(path) <= acknowledged + 1
    store = SQLiteStore(f"sqlite:///{path}")
    store.acquire()
    store.close()


def check(path: Path) -> int:
    """The number of batches in the store, all whole."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        events, batches = connection.execute("SELECT count(*), max(originator_version) FROM stored_events").fetchone()
        assert events == batches * BATCH
        assert connection.execute("SELECT max(id) FROM stored_events").fetchone() == (events,)
        assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (events,)
        assert connection.execute("SELECT DISTINCT sequence FROM instances").fetchall() == [(batches,)]
        assert connection.execute("SELECT DISTINCT timer_id FROM timers").fetchall() == [(f"t-{batches}",)]
        pending = connection.execute("SELECT count(*) FROM effects WHERE state = 'pending'").fetchone()
        assert pending == (BATCH,)
        return int(batches)
    finally:
        connection.close()
