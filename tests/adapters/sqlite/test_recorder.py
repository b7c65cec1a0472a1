"""What the SQLite recorder promises beyond the contract: few statements, readable tables, queries that use an index."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventsourcing.persistence import (
    ConnectionPoolClosedError,
    DataError,
    IntegrityError,
    OperationalError,
    StoredEvent,
)

from statewright.adapters.sqlite.factory import Factory
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.engine.recorder import Changes, InstanceFilter
from tests.contracts.rows import effect, event, inbox, instance, timer

WHOLE = Changes(inbox=[inbox()], instances=[instance()], timers_set=[timer()], effects_requested=[effect()])


@pytest.fixture
def recorder(factory: Factory) -> SQLiteInstanceRecorder:
    return factory.application_recorder()


@pytest.fixture
def sql(recorder: SQLiteInstanceRecorder) -> Iterator[sqlite3.Connection]:
    """The file as any SQLite client sees it."""
    connection = sqlite3.connect(recorder.datastore.path)
    yield connection
    connection.close()


@pytest.mark.parametrize("count", [9, 16, 17, 512, 513, 1_500])
def test_many_events_are_few_statements(recorder: SQLiteInstanceRecorder, count: int) -> None:
    statements: list[str] = []
    with recorder.datastore.statement() as connection:
        connection.set_trace_callback(statements.append)
    events = [event("a", sequence) for sequence in range(1, count + 1)]
    rows = [inbox(event_id=f"e-{sequence}")._replace(sequence=sequence) for sequence in range(1, count + 1)]
    recorder.insert_events(events, changes=Changes(inbox=rows))
    # Statements that a trigger runs, and those that SQLite itself does, are traced as comments.
    assert len([text for text in statements if not text.startswith("--")]) <= 3 + 2 * (1 + count // 512)
    assert recorder.select_events("a") == events
    assert sorted(recorder.select_inbox("a", count + 1)) == sorted(rows)


def test_states_are_json_text_that_sql_can_read(recorder: SQLiteInstanceRecorder, sql: sqlite3.Connection) -> None:
    state = {"type": "transition_taken", "trigger": {"name": "submit", "data": {"by": "Zoë"}}}
    recorder.insert_events([event("a", 1, json.dumps(state, ensure_ascii=False).encode())])
    query = "SELECT typeof(state), json_extract(state, '$.trigger.data.by'), topic FROM stored_events"
    assert sql.execute(query).fetchall() == [("text", "Zoë", "transition_taken")]


def test_states_that_are_no_text_stay_bytes(recorder: SQLiteInstanceRecorder, sql: sqlite3.Connection) -> None:
    # The second joins with the third to valid UTF-8, but neither is.
    recorder.insert_events([event("a", 1), event("a", 2, b"\xe2\x82"), event("a", 3, b"\xac")])
    assert sql.execute("SELECT typeof(state) FROM stored_events").fetchall() == [("text",), ("blob",), ("blob",)]


def test_tables_have_the_columns_that_scripts_rely_on(
    recorder: SQLiteInstanceRecorder, sql: sqlite3.Connection
) -> None:
    recorder.insert_events([event()], changes=WHOLE)
    published = {
        "instances": "id, definition, version, status, configuration, context, sequence, started_at, updated_at,"
        " ended_at",
        "timers": "instance_id, timer_id, due_at, event",
        "effects": "effect_id, instance_id, partition, name, kind, state, attempt, due_at, lease_epoch",
        "stored_events": "originator_id, originator_version, topic, state",
    }
    for table, names in published.items():
        assert len(sql.execute(f"SELECT {names} FROM {table}").fetchall()) == 1
    assert sql.execute("SELECT name, version, digest, json FROM definitions").fetchall() == []
    query = "SELECT json_extract(configuration, '$[0]'), json_extract(context, '$.amount') FROM instances"
    assert sql.execute(query).fetchall() == [("draft", 900)]


def test_positions_are_not_used_again_after_a_prune(factory: Factory, sql: sqlite3.Connection) -> None:
    recorder = factory.application_recorder()
    assert recorder.insert_events([event("a", 1), event("a", 2)]) == [1, 2]
    sql.execute("DELETE FROM stored_events")
    sql.commit()
    assert recorder.insert_events([event("a", 3)]) == [3]
    sql.execute("DELETE FROM stored_events")
    sql.commit()
    assert factory.application_recorder().insert_events([event("a", 4)]) == [4]


def test_a_failed_transaction_takes_no_position(recorder: SQLiteInstanceRecorder) -> None:
    recorder.insert_events([event("a", 1)])
    with pytest.raises(IntegrityError, match=r"stored_events\.originator_version"):
        recorder.insert_events([event("a", 1)])
    assert recorder.insert_events([event("a", 2)]) == [2]


@pytest.mark.parametrize(
    "changes",
    [
        Changes(inbox=[inbox("a\0b")]),
        Changes(inbox=[inbox(source="\0")]),
        Changes(effects_ended=[("failed", "a\0b", "a-1-0")]),
        Changes(inbox=[inbox()._replace(digest=b"short")]),
    ],
)
@pytest.mark.parametrize("few", [0, 8])
def test_what_cannot_be_stored_as_it_is_is_refused(
    recorder: SQLiteInstanceRecorder, changes: Changes, few: int
) -> None:
    recorder.few = few
    with pytest.raises(DataError, match="expected"):
        recorder.insert_events([event()], changes=changes)
    assert recorder.select_events("a") == []


@pytest.mark.parametrize("few", [0, 8])
def test_json_texts_may_say_nul(recorder: SQLiteInstanceRecorder, few: int) -> None:
    recorder.few = few
    row = instance(context=r'{"note":"a\u0000b"}')
    recorder.insert_events([event()], changes=Changes(instances=[row]))
    assert recorder.select_instance("a") == row


def test_a_full_database_leaves_nothing_half_done(recorder: SQLiteInstanceRecorder) -> None:
    with recorder.datastore.statement() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(OperationalError, match="full"):
        recorder.insert_events([event("a", 1), event("a", 2, b"x" * 50_000)], changes=WHOLE)
    assert recorder.select_events("a") == []
    assert recorder.select_instance("a") is None
    assert recorder.insert_events([event("a", 1)], changes=WHOLE) == [1]


def test_a_claim_does_not_make_the_next_commit_less_durable(recorder: SQLiteInstanceRecorder) -> None:
    recorder.insert_events([event()], changes=WHOLE)
    recorder.claim_effects(500, 1, names=["notify"], kinds=[], lease_ns=5)
    with pytest.raises(IntegrityError), recorder.datastore.write(durable=False):
        raise IntegrityError
    with recorder.datastore.statement() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_closed_store_says_so(factory: Factory) -> None:
    recorder = factory.application_recorder()
    factory.close()
    with pytest.raises(ConnectionPoolClosedError):
        recorder.insert_events([event()])
    with pytest.raises(ConnectionPoolClosedError):
        recorder.select_events("a")


def test_a_reader_that_is_at_work_is_closed_when_it_is_done(factory: Factory) -> None:
    recorder = factory.application_recorder()
    with recorder.datastore.read() as connection:
        factory.close()
        assert connection.execute("SELECT 1").fetchone()[0] == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_every_query_uses_an_index(recorder: SQLiteInstanceRecorder) -> None:
    """So that one instance costs the same among many."""
    traced: list[str] = []
    with recorder.datastore.read() as reader, recorder.datastore.statement() as writer:
        reader.set_trace_callback(traced.append)
        writer.set_trace_callback(traced.append)
    recorder.select_events("a", desc=True, limit=1)
    recorder.select_notifications(5, 10)
    recorder.max_notification_id()
    recorder.select_inbox("a", 5)
    recorder.find_inbox("a", "", "x")
    recorder.select_instance("a")
    recorder.select_instances(InstanceFilter(after="x"))
    recorder.select_instances(InstanceFilter(status="failed"))
    recorder.due_timers(5, 5)
    recorder.next_timer_at()
    recorder.select_timers("a")
    recorder.claim_effects(5, 5, names=["a", "b"], kinds=["emit"], lease_ns=5)
    recorder.retry_effect("a-1-0", 1, 1, "")
    recorder.next_effect_at(names=["a"], kinds=["emit"])
    recorder.select_effects("a")
    statements = [text for text in traced if text.startswith(("SELECT", "UPDATE"))]
    assert len(statements) == 15
    traced.clear()
    recorder.few = 0
    everything = Changes(
        instances=[instance("b")],
        timers_cleared=[("b", "t")],
        timers_set=[timer(instance_id="b")],
        instances_closed=["b"],
        effects_requested=[effect(instance_id="b")],
        effects_ended=[("done", "", "b-1-0")],
    )
    recorder.insert_events([event("b")], changes=everything)
    writing = [text for text in traced if text.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert len(writing) == 10
    with recorder.datastore.statement() as connection:
        connection.set_trace_callback(None)
        for text in [*statements, *writing]:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
            scanned = [step.split()[1] for step in plan if step.startswith("SCAN")]
            assert not {"stored_events", "inbox", "instances", "timers", "effects"} & set(scanned), text


def test_the_librarys_snapshots_are_kept_beside(factory: Factory, tmp_path: Path) -> None:
    snapshots = factory.aggregate_recorder("snapshots")
    snapshots.insert_events([StoredEvent("a", 7, "instance_snapshot", b"{}")])
    assert [row.originator_version for row in snapshots.select_events("a", desc=True, limit=1)] == [7]
    assert factory.application_recorder().select_events("a") == []
