"""A backup is whole, or there is none."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from statewright.adapters.sqlite.backup import back_up
from statewright.adapters.sqlite.factory import Factory
from statewright.engine.errors import InvalidError, NotFoundError, UnavailableError
from statewright.engine.recorder import Changes
from tests.contracts.rows import event, inbox, instance


def factory(path: Path) -> Factory:
    return Factory({"SQLITE_DBNAME": str(path)})


def test_it_is_the_store_at_one_moment_while_it_is_written(tmp_path: Path) -> None:
    """Each commit writes a fact, an identity and a row: the copy has all three of each, or none."""
    store = factory(tmp_path / "store.db")
    recorder = store.application_recorder()
    stop = threading.Event()

    def write() -> None:
        sequence = 0
        while not stop.is_set():
            sequence += 1
            changes = Changes(
                inbox=[inbox(f"e-{sequence}", sequence=sequence)], instances=[instance(sequence=sequence)]
            )
            recorder.insert_events([event("a", sequence, b"x" * 500)], changes=changes)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        for number in range(5):
            copy = tmp_path / f"copy-{number}.db"
            assert back_up(str(tmp_path / "store.db"), str(copy), lambda path: None) == copy.stat().st_size
            copied = factory(copy)
            held = copied.application_recorder()
            row = held.select_instance("a")
            count = len(held.located_events("a"))
            assert count == len(held.select_inbox("a", 10**6)) == (row.sequence if row else 0)
            counts.append(count)
            copied.close()
    finally:
        stop.set()
        writer.join()
        store.close()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    assert sorted(path.name for path in tmp_path.glob("copy*.partial*")) == []


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    factory(tmp_path / "store.db").application_recorder()
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(InvalidError, match="exists"):
        back_up(str(tmp_path / "store.db"), str(target), lambda path: None)
    assert target.read_text() == "precious"


def test_a_copy_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    factory(tmp_path / "store.db").application_recorder()

    def refuse(path: str) -> None:
        assert Path(path).exists()
        raise UnavailableError("it is not true to itself")

    with pytest.raises(UnavailableError, match="true to itself"):
        back_up(str(tmp_path / "store.db"), str(tmp_path / "copy.db"), refuse)
    assert not list(tmp_path.glob("copy*"))


def test_a_store_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="can't be backed up"):
        back_up(str(tmp_path / "none.db"), str(tmp_path / "copy.db"), lambda path: None)
    (tmp_path / "empty.db").touch()
    with pytest.raises(NotFoundError, match="empty"):
        back_up(str(tmp_path / "empty.db"), str(tmp_path / "copy.db"), lambda path: None)
    with pytest.raises(UnavailableError, match="nowhere"):
        back_up(str(tmp_path / "empty.db"), str(tmp_path / "nowhere" / "copy.db"), lambda path: None)
    assert not list(tmp_path.glob("copy*"))
