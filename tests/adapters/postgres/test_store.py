"""Opening a PostgreSQL store: migrations, two at once, what is refused, and what is never said."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import psycopg
import pytest
from eventsourcing.persistence import DataError, OperationalError

from statewright.adapters.postgres import schema
from statewright.adapters.postgres.factory import URL, Factory
from statewright.adapters.postgres.store import PostgresStore
from statewright.engine import Engine
from statewright.engine.errors import InvalidError, NotFoundError, UnavailableError
from statewright.engine.recorder import Changes, InstanceRecorder
from statewright.engine.redaction import redacted
from statewright.engine.stores import open_store
from tests.contracts.rows import event, inbox
from tests.postgres_server import PASSWORD, new_url, shared_server


@pytest.fixture
def url() -> str:
    return new_url()


@pytest.fixture
def recorder(url: str) -> Iterator[InstanceRecorder]:
    factory = Factory({URL: url})
    yield factory.application_recorder()
    factory.close()


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def role(url: str, name: str, rights: str, options: str = "") -> str:
    """A URL for a new role with `rights` on the tables of `url`'s schema."""
    (found,) = execute(url, "SELECT current_schema()")
    server = shared_server()
    name = f"{name}_{found[0]}"
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}")
    server.execute(f"GRANT USAGE ON SCHEMA {found[0]} TO {name}")
    if rights:
        server.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA {found[0]} TO {name}")
    return server.url(user=name, options=f"?options=-csearch_path%3D{found[0]}")


def test_a_store_is_found_by_its_url_and_made_when_it_is_acquired(url: str) -> None:
    store = open_store(url)
    assert execute(url, "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()") == [(0,)]
    with pytest.raises(NotFoundError, match="none yet"):
        open_store(url, read_only=True)
    store.acquire()
    store.acquire()
    assert execute(url, "SELECT version FROM statewright_migrations") == [(schema.VERSION,)]
    assert store.endpoint_path is None
    open_store(url).acquire()  # Nobody owns it alone.
    open_store(url, read_only=True).close()


def test_many_that_open_a_new_store_at_once_all_succeed(url: str) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        try:
            PostgresStore(url).acquire()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert execute(url, "SELECT count(*) FROM statewright_migrations") == [(schema.VERSION,)]


def test_a_newer_store_is_refused_and_left_alone(url: str) -> None:
    PostgresStore(url).acquire()
    execute(url, "INSERT INTO statewright_migrations VALUES (999, 0)")
    for read_only in (False, True):
        with pytest.raises(InvalidError, match="has version 999: a newer Statewright"):
            PostgresStore(url, read_only=read_only).acquire()


def test_an_older_store_is_migrated_whole_or_not_at_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PostgresStore(url).acquire()
    later = schema.VERSION + 1
    monkeypatch.setattr(schema, "VERSION", later)
    monkeypatch.setitem(schema.MIGRATIONS, later, ("ALTER TABLE parked ADD COLUMN note text", "SELECT 1 / 0"))
    with pytest.raises(UnavailableError, match="division by zero"):
        PostgresStore(url).acquire()
    columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'parked'::regclass AND attname = 'note'"
    assert execute(url, columns) == [(0,)]
    with pytest.raises(InvalidError, match="open it for writing once, which migrates it"):
        PostgresStore(url, read_only=True)
    monkeypatch.setitem(schema.MIGRATIONS, later, ("ALTER TABLE parked ADD COLUMN note text",))
    PostgresStore(url).acquire()
    assert execute(url, columns) == [(1,)]
    PostgresStore(url, read_only=True)


def test_tables_of_something_else_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE instances (what text)")
    with pytest.raises(InvalidError, match="tables of something else by the names of ours: instances"):
        PostgresStore(url).acquire()
    assert execute(url, "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()") == [(1,)]


def test_tables_with_other_names_disturb_nobody(url: str) -> None:
    execute(url, "CREATE TABLE customers (what text)")
    PostgresStore(url).acquire()


async def test_a_wrong_password_is_refused_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = shared_server().url(password="Wr0ng-Secret")
    with pytest.raises(UnavailableError, match="password authentication failed") as caught:
        async with Engine.open(url):
            pass
    error: BaseException | None = caught.value
    while error is not None:
        assert "Wr0ng-Secret" not in f"{error}{error!r}"
        error = error.__cause__
    assert "Wr0ng-Secret" not in caplog.text
    store = PostgresStore(url)
    assert "Wr0ng-Secret" not in f"{store!r}{store.url}"


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://ann:Wr0ng@Secret@localhost/db",
        "postgresql://ann:Wr0ng/Secret@localhost/db",
        "postgresql://ann:Wr0ng#Secret:@localhost:x/db",
        "postgresql://localhost/db?password=Wr0ng-Secret&nonsense=1",
        "postgresql://localhost:port/db",
        "postgresql:nothing",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(InvalidError, match="expected a store URL like postgresql://user:password@host") as caught:
        open_store(wrong)
    assert "Secret" not in str(caught.value)


def test_what_may_be_shown_of_a_url() -> None:
    assert redacted("postgresql://ann:p%40ss@db:5432/app?sslmode=require") == (
        "postgresql://***@db:5432/app?sslmode=require"
    )
    assert redacted("postgresql://db/app?user=a&password=x&y=1") == "postgresql://db/app?user=a&password=***&y=1"
    assert redacted("sqlite:///some/file@home.db") == "sqlite:///some/file@home.db"
    assert redacted("nats://user:pw@host:4222") == "nats://***@host:4222"


def test_nobody_listens(url: str) -> None:
    nowhere = url.replace(f":{shared_server().port}/", ":1/")
    with pytest.raises(UnavailableError, match=r"ann|refused"):
        PostgresStore(nowhere).acquire()


def test_a_role_that_only_reads_cannot_own_but_can_read(url: str) -> None:
    PostgresStore(url).acquire()
    reader = role(url, "reader", "SELECT")
    with pytest.raises(UnavailableError, match=r"role 'reader_\w+' to have the right to read and write, .*inbox"):
        PostgresStore(reader).acquire()
    factory = Factory(dict(PostgresStore(reader, read_only=True).environment))
    assert factory.application_recorder().select_notifications(None, 1) == []
    with pytest.raises(OperationalError, match="read-only"):
        factory.application_recorder().insert_events([event()])
    factory.close()


def test_a_role_that_may_not_make_tables_says_so(url: str) -> None:
    with pytest.raises(UnavailableError, match="can't be written: permission denied for schema"):
        PostgresStore(role(url, "nobody", "")).acquire()


def test_no_connection_is_left(url: str) -> None:
    PostgresStore(url).acquire()
    few = role(url, "few", "ALL", "CONNECTION LIMIT 1")
    with psycopg.connect(few), pytest.raises(UnavailableError, match="too many connections for role"):
        PostgresStore(few).acquire()


def test_a_right_that_is_taken_away_is_the_stores_fault_and_not_the_requests(url: str) -> None:
    PostgresStore(url).acquire()
    writer = role(url, "writer", "ALL")
    factory = Factory(dict(PostgresStore(writer).environment))
    recorder = factory.application_recorder()
    recorder.insert_events([event("a", 1)])
    (found,) = execute(url, "SELECT current_schema()")
    shared_server().execute(f"REVOKE INSERT ON {found[0]}.stored_events FROM writer_{found[0]}")
    with pytest.raises(OperationalError, match="permission denied for table stored_events"):
        recorder.insert_events([event("a", 2)])
    factory.close()


def test_text_with_a_nul_is_refused_alone(recorder: InstanceRecorder) -> None:
    with pytest.raises(DataError, match="without NUL characters"):
        recorder.insert_events([event()], changes=Changes(inbox=[inbox("a\0b")]))
    assert recorder.select_events("a") == []
    recorder.insert_events([event()], changes=Changes(inbox=[inbox("ab")]))


def test_every_commit_waits_for_the_disk(url: str) -> None:
    off = f"{url}%20-csynchronous_commit%3Doff"
    factory = Factory({URL: off})
    with factory.datastore.read() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    factory.close()
