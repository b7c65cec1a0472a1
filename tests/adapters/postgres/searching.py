"""Where the secret of `tests.engine.secrets` can be read in a PostgreSQL server: in rows, in dumps, in files."""

from __future__ import annotations

import subprocess

import psycopg

from tests.engine.secrets import SECRET
from tests.postgres_server import PostgresServer, program

SOUGHT = (SECRET.encode(), SECRET.encode().hex().encode())
"""A dump shows bytes as hexadecimals."""
EVERYWHERE = {
    "stored_events", "stored_snapshots", "inbox", "instances", "effects", "parked", "schedules",
}  # fmt: skip
"""The tables in which a plain store keeps what `fill` brings."""


def holding(server: PostgresServer) -> list[str]:
    """The names of the server's files, its WAL and its log among them, in which the secret can be read."""
    server.execute("CHECKPOINT")
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(server.folder)) for path in files if SECRET.encode() in path.read_bytes()]


def dump(url: str) -> bytes:
    """What `pg_dump` writes of the store."""
    schema = url.rpartition("%3D")[2]
    done = subprocess.run([program("pg_dump"), "-n", schema, "-d", url], capture_output=True, check=True)
    assert b"COPY" in done.stdout
    # A random word in it, since 2025, keeps who restores it from running commands of whoever has written it.
    return b"\n".join(
        line for line in done.stdout.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))
    )


def dumped(url: str) -> bool:
    """Whether the secret is in it."""
    return any(sought in dump(url) for sought in SOUGHT)


def tables(url: str) -> set[str]:
    """The tables with a row in which the secret can be read, whatever the column."""
    found = set[str]()
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
        for (name,) in names:
            rows = connection.execute(f"SELECT row_to_json(one)::text FROM {name} AS one".encode())
            if any(sought.decode() in row for (row,) in rows for sought in SOUGHT):
                found.add(name)
    return found
