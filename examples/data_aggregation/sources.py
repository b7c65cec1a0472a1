"""The world that the example asks: a database, a file, and two servers on loopback. Real ones, but small."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from typing import Any

PAID = {"bolt": 12, "hinge": 310, "screw": 4}
LISTED = {"bolt": 10, "hinge": 335, "lock": 1990, "screw": 5}
MAILED = "article,cents\nbolt,11\nhinge,299\nlock,2150\nscrew,6\n"
TICKS = [("bolt", 14), ("screw", 3), ("hinge", 320), ("bolt", 13)]
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Sources:
    """Where they are: two files, a base URL, and the address of a ticker."""

    database: Path
    file: Path
    http: str
    stream: tuple[str, int]


@contextmanager
def opened(folder: Path) -> Iterator[Sources]:
    """The sources, with servers on ports that are free; they stop when the block ends."""
    database, file = folder / "purchases.db", folder / "quotes.csv"
    fill(database)
    file.write_text(MAILED, encoding="utf-8")
    closing_time = threading.Event()
    supplier = ThreadingHTTPServer((LOOPBACK, 0), partial(Supplier, closing_time))
    ticker = ThreadingTCPServer((LOOPBACK, 0), Ticker)
    with running(supplier), running(ticker):
        sources = Sources(
            database, file, f"http://{LOOPBACK}:{supplier.server_port}", (LOOPBACK, ticker.socket.getsockname()[1])
        )
        try:
            yield sources
        finally:
            closing_time.set()


def fill(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS purchases (article TEXT PRIMARY KEY, cents INTEGER)")
        connection.executemany("INSERT OR REPLACE INTO purchases VALUES (?, ?)", PAID.items())


@contextmanager
def running(server: BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Supplier(BaseHTTPRequestHandler):
    """Answers `/quotes`; whoever asks for anything else is kept waiting until the server closes."""

    def __init__(self, closing_time: threading.Event, *arguments: Any) -> None:
        self._closing_time = closing_time
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path != "/quotes":
            self._closing_time.wait()
            return
        body = json.dumps(LISTED).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing: what is printed is the example's."""


class Ticker(StreamRequestHandler):
    """Sends each tick as a line of JSON, and says when the market has closed."""

    def handle(self) -> None:
        for article, cents in TICKS:
            self.wfile.write(json.dumps({"article": article, "cents": cents}).encode() + b"\n")
        self.wfile.write(b'{"end": true}\n')
