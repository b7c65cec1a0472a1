"""A store in a PostgreSQL database: found by its URL, shared by many workers.

Invariants: nothing is created or changed before `acquire`; nobody owns the store as a whole (leases and the unique
(instance, sequence) keep workers apart); the URL's password is shown to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from eventsourcing.persistence import PersistenceError

from statewright.adapters.postgres import reencryption, schema, writers
from statewright.adapters.postgres.datastore import Connection, Datastore
from statewright.adapters.postgres.factory import READ_ONLY, URL, Factory
from statewright.engine.errors import UnavailableError
from statewright.engine.redaction import redacted

_WRITTEN = (
    "stored_events", "stored_snapshots", "inbox", "instances", "timers", "effects", "steps", "definitions", "parked",
    "leases", "schedules", "notification_tracking", "metrics_figures", "metrics_runs",
)  # fmt: skip


class PostgresStore:
    """`postgresql://user:password@host:5432/database`, with libpq's settings after `?` (sslmode, options, ...).

    Raises `InvalidError` for other URLs; with `read_only`, `NotFoundError` if there is no store yet, `InvalidError` for
    one of another version, and `UnavailableError` when the database can't be reached.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._url = url
        self.url = redacted(url)
        self.read_only = read_only
        datastore = Datastore(url, read_only=read_only)
        try:
            if read_only:
                with datastore.read() as connection:
                    schema.check_exists(connection)
        except PersistenceError as error:
            raise UnavailableError(f"the store {self.url} can't be opened: {error}") from error
        finally:
            datastore.close()

    def __repr__(self) -> str:
        return f"PostgresStore({self.url!r}, read_only={self.read_only})"

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings with which an `eventsourcing` application uses this database. They contain the password."""
        return {
            "PERSISTENCE_MODULE": "statewright.adapters.postgres.factory",
            URL: self._url,
            READ_ONLY: "y" if self.read_only else "n",
            "CREATE_TABLE": "n",
            "ORIGINATOR_ID_TYPE": "text",
        }

    @property
    def is_shared(self) -> bool:
        return True

    @property
    def identity(self) -> str:
        """Made with the tables."""
        datastore = Datastore(self._url, read_only=True)
        try:
            with datastore.read() as connection:
                row = connection.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
        finally:
            datastore.close()
        return str(row[0]) if row else self.url

    @property
    def endpoint_path(self) -> str | None:
        """None: workers are found through their NATS server."""
        return None

    def acquire(self) -> None:
        """Make the tables if the store is new, migrate them if it is older, and see that this role can write.

        Raises `UnavailableError` (also while the store is being re-encrypted), or `InvalidError` for a newer version's
        store and for tables of something else.
        """
        factory = Factory({**self.environment, "CREATE_TABLE": "y"})
        try:
            factory.application_recorder()
            with factory.datastore.read() as connection:
                _require_rights(connection)
                writers.check(connection)
        except PersistenceError as error:
            raise UnavailableError(f"the store {self.url} can't be written: {error}") from error
        finally:
            factory.close()

    @contextmanager
    def rewriting(self) -> Iterator[reencryption.Rewriting]:
        """See `engine.reencryption.Rewritable`. The role must own the tables."""
        self.acquire()
        datastore = Datastore(self._url)
        try:
            with reencryption.rewriting(datastore) as rewriting:
                yield rewriting
        finally:
            datastore.close()

    def close(self) -> None:
        """Nothing is held."""


def _require_rights(connection: Connection) -> None:
    """Raise `UnavailableError` if the role or the server only reads."""
    # A list of rights is met by any of them; each is asked for alone.
    query = (
        "SELECT current_user, string_agg(DISTINCT name, ', '), pg_is_in_recovery()"
        " FROM unnest(%s::text[]) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS its_right"
        " WHERE NOT has_table_privilege(name, its_right)"
    )
    user, tables, is_standby = connection.execute(query, (list(_WRITTEN),)).fetchone() or ("", None, False)
    if is_standby:
        raise UnavailableError("expected a server that can be written, but it is a standby")
    if tables is not None:
        raise UnavailableError(f"expected role '{user}' to have the right to read and write, but not so: {tables}")
