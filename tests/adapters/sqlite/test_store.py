"""A SQLite store is found by URL, owned by one process, read by all, and says clearly why it can't be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from eventsourcing.application import Application
from eventsourcing.persistence import OperationalError

from statewright.adapters.sqlite import schema
from statewright.adapters.sqlite.factory import Factory
from statewright.adapters.sqlite.store import SQLiteStore
from statewright.engine.errors import InvalidError, NotFoundError, UnavailableError
from statewright.engine.partitions import partition_of
from statewright.engine.recorder import Changes, InstanceRecorder, TimerRow
from tests.adapters.sqlite.conftest import Mounts
from tests.contracts.rows import effect, event, inbox, instance

HOLDER = """
import sys
from statewright.adapters.sqlite.store import SQLiteStore
store = SQLiteStore(sys.argv[1])
store.acquire()
print("owned", flush=True)
sys.stdin.read()
"""


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def make(path: Path, facts: int = 1) -> None:
    """A store with `facts` facts of instance "a", closed."""
    store = SQLiteStore(url(path))
    store.acquire()
    factory = Factory(dict(store.environment))
    factory.application_recorder().insert_events([event("a", number + 1) for number in range(facts)])
    factory.close()
    store.close()


def read(path: Path) -> int:
    """How many facts of instance "a" a reader sees."""
    with Application[str](dict(SQLiteStore(url(path), read_only=True).environment)) as application:
        return len(application.recorder.select_events("a"))


def test_urls_name_relative_and_absolute_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert SQLiteStore("sqlite:///some.db").path == "some.db"
    assert SQLiteStore(url(tmp_path / "other.db")).path == str(tmp_path / "other.db")
    assert SQLiteStore("sqlite:///with%20space.db").path == "with space.db"
    assert SQLiteStore("sqlite:///some.db").endpoint_path == "some.db.endpoint"


@pytest.mark.parametrize(
    "given", ["sqlite://", "sqlite:///", "sqlite://some.db", "postgresql://x/y", "some.db", "sqlite:///:memory:", ""]
)
def test_other_urls_are_refused(given: str) -> None:
    with pytest.raises(InvalidError, match="expected a"):
        SQLiteStore(given)


@pytest.mark.parametrize("name", ["plain.db", "with space.db", "100%?#&.db", "zoë.db"])
def test_any_file_name_is_that_files_name(tmp_path: Path, name: str) -> None:
    store = SQLiteStore(f"sqlite:///{quote(str(tmp_path / name))}")
    store.acquire()
    assert (tmp_path / name).exists()
    store.close()


def test_nothing_is_made_before_the_store_is_owned(tmp_path: Path) -> None:
    store = SQLiteStore(url(tmp_path / "store.db"))
    assert list(tmp_path.iterdir()) == []
    store.acquire()
    assert (tmp_path / "store.db").exists()
    store.close()
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.db", "store.db.lock"]


def test_a_store_has_one_owner_whose_pid_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    command = [sys.executable, "-c", HOLDER, url(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "owned\n"
        second = SQLiteStore(url(path))
        with pytest.raises(UnavailableError, match=rf"owned by the process with pid {holder.pid}"):
            second.acquire()
        holder.kill()
        holder.wait()
    second.acquire()
    second.acquire()
    with pytest.raises(UnavailableError, match=str(os.getpid())):
        SQLiteStore(url(path)).acquire()
    second.close()
    third = SQLiteStore(url(path))
    third.acquire()
    third.close()


def test_the_lock_is_freed_when_the_tables_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(url(path))
    path.write_text("this is no database, whatever its name says")
    with pytest.raises(UnavailableError, match=r"can't be written: file is not a database"):
        store.acquire()
    path.unlink()
    store.acquire()
    store.close()


def test_readers_work_beside_the_owner_and_after_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(url(path))
    store.acquire()
    with Application[str](dict(store.environment)) as application:
        application.recorder.insert_events([event("a", 1)])
        with Application[str](dict(SQLiteStore(url(path), read_only=True).environment)) as reader:
            assert len(reader.recorder.select_events("a")) == 1
            application.recorder.insert_events([event("a", 2)])
            assert len(reader.recorder.select_events("a")) == 2
            with pytest.raises(OperationalError, match="read-only"):
                reader.recorder.insert_events([event("a", 3)])
    store.close()
    assert read(path) == 2


def test_a_reader_owns_nothing_and_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(NotFoundError, match=r"no such file"):
        SQLiteStore(url(path), read_only=True)
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(NotFoundError, match="empty"):
        SQLiteStore(url(path), read_only=True)
    make(path)
    with pytest.raises(InvalidError, match="read-only"):
        SQLiteStore(url(path), read_only=True).acquire()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_of_a_newer_version_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "store.db"
    make(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(InvalidError, match=f"has version {schema.SCHEMA_VERSION + 1}: a newer Statewright"):
        SQLiteStore(url(path), read_only=read_only)


def test_a_store_from_before_there_were_schedules_gets_their_table_from_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    make(path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE schedules")
    connection.close()
    old = SQLiteStore(url(path), read_only=True)
    factory = Factory(old.environment)
    assert list(factory.application_recorder().select_schedules()) == []
    factory.close()
    owner = SQLiteStore(url(path))
    owner.acquire()
    owner.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM schedules").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    text, database = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("dear diary\n" * 100)
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = text.read_bytes(), database.read_bytes()
    with pytest.raises(InvalidError, match="expected a SQLite database"):
        SQLiteStore(url(text), read_only=read_only)
    with pytest.raises(InvalidError, match="another application's database"):
        SQLiteStore(url(database), read_only=read_only)
    assert (text.read_bytes(), database.read_bytes()) == before


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_is_no_store(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(UnavailableError, match="can't be opened"):
        SQLiteStore(url(tmp_path), read_only=read_only)


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file or directory"):
        SQLiteStore(url(tmp_path / "missing" / "store.db")).acquire()


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path, mounts: Mounts) -> None:
    original, seen = tmp_path / "original", tmp_path / "seen"
    original.mkdir()
    seen.mkdir()
    make(original / "store.db")
    mounts.read_only(original, seen)
    with pytest.raises(UnavailableError, match="Read-only file system"):
        SQLiteStore(url(seen / "store.db")).acquire()
    assert read(seen / "store.db") == 1
    # Beside an owner, who writes through the other path.
    store = SQLiteStore(url(original / "store.db"))
    store.acquire()
    with Application[str](dict(store.environment)) as application:
        application.recorder.insert_events([event("a", 2)])
        assert read(seen / "store.db") == 2
    store.close()


def test_a_file_that_cannot_be_written_can_be_read(tmp_path: Path, mounts: Mounts) -> None:
    path = tmp_path / "store.db"
    make(path)
    mounts.read_only(path, path)
    with pytest.raises(UnavailableError, match="readonly database"):
        SQLiteStore(url(path)).acquire()
    assert read(path) == 1


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, mounts: Mounts) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts.small(disk, kib=1_024)
    make(disk / "store.db", facts=0)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    store = SQLiteStore(url(disk / "store.db"))
    store.acquire()
    with closing(Factory(dict(store.environment))) as factory:
        recorder = factory.application_recorder()
        recorded = _fill(recorder)
        assert recorded > 0
        assert [row.originator_version for row in recorder.select_events("a")] == [*range(1, recorded + 1)]
        assert recorder.select_instance("a") == instance(sequence=recorded)
        assert len(recorder.select_inbox("a", 10_000)) == recorded
        ballast.unlink()
        assert _record(recorder, recorded + 1) == [recorded + 1]
    store.close()
    connection = sqlite3.connect(disk / "store.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM stored_events").fetchone() == (recorded + 1,)
    connection.close()


def test_a_full_disk_is_told_when_the_store_is_made(tmp_path: Path, mounts: Mounts) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts.small(disk, kib=64)
    store = SQLiteStore(url(disk / "store.db"))
    with pytest.raises(UnavailableError, match="full"):
        store.acquire()


def _fill(recorder: InstanceRecorder) -> int:
    """Record facts until the disk is full; how many were."""
    recorded, error = 0, ""
    while not error:
        try:
            _record(recorder, recorded + 1)
            recorded += 1
        except OperationalError as full:
            error = str(full)
    assert "full" in error
    return recorded


def _record(recorder: InstanceRecorder, sequence: int) -> Sequence[int] | None:
    changes = Changes(inbox=[inbox(f"e-{sequence}", sequence=sequence)], instances=[instance(sequence=sequence)])
    return recorder.insert_events([event("a", sequence, b"x" * 5_000)], changes=changes)


def test_a_store_of_version_1_is_migrated_by_the_first_who_owns_it(tmp_path: Path) -> None:
    """Its timers had no partition and its effects no policy, and there were no leases."""
    path = tmp_path / "store.db"
    store = SQLiteStore(url(path))
    store.acquire()
    factory = Factory(dict(store.environment))
    factory.application_recorder().insert_events([], changes=Changes(effects_requested=[effect(policy="")]))
    factory.close()
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (
            "INSERT INTO timers VALUES ('d-17', 'reminder', 20, 'remind', 0)",
            "DROP INDEX timers_due",
            "ALTER TABLE timers DROP COLUMN partition",
            "CREATE INDEX timers_by_due ON timers (due_at)",
            "ALTER TABLE effects DROP COLUMN policy",
            "ALTER TABLE effects DROP COLUMN details",
            "DROP TABLE leases",
            "PRAGMA user_version = 1",
        ):
            connection.execute(statement)
    with pytest.raises(InvalidError, match="has version 1: open it for writing once, which migrates it"):
        SQLiteStore(url(path), read_only=True)

    store = SQLiteStore(url(path))
    store.acquire()
    store.close()

    factory = Factory(SQLiteStore(url(path), read_only=True).environment)
    recorder = factory.application_recorder()
    partition = partition_of("d-17", recorder.partitions)
    assert recorder.due_timers(99, 9) == [TimerRow("d-17", "reminder", 20, "remind", partition)]
    assert list(recorder.select_effects("a")) == [effect(policy="")]
    assert recorder.select_leases() == []
    factory.close()
