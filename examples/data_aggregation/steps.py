"""The steps of `workflow.yaml`: quotes are read from four kinds of sources, then put together.

Quotes are prices in cents by article. All steps but `report` only read and compute, so it does no harm if one is
performed again after a crash; `report` writes the same file again, whole or not at all.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import create_connection
from typing import Any
from urllib.request import urlopen

from statewright.engine.workflows import StepCall
from statewright.examples.data_aggregation.sources import Sources
from statewright.examples.files import note, write

Quotes = dict[str, int]


class Aggregation:
    """What the steps have in common: where the sources are, and the folder of the files."""

    def __init__(self, folder: Path, sources: Sources) -> None:
        self._folder = folder
        self._sources = sources

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The steps, by the names that the workflow has for them."""
        return {
            "read_database": self.read_database,
            "read_http": self.read_http,
            "read_file": self.read_file,
            "read_stream": self.read_stream,
            "read_late": self.read_late,
            "gather": self.gather,
            "merge": self.merge,
            "union": self.union,
            "intersect": self.intersect,
            "statistics": self.statistics,
            "report": self.report,
        }

    # The sources

    def read_database(self, call: StepCall) -> Quotes:
        """What we paid last."""
        self._begin(call)
        with closing(sqlite3.connect(f"{self._sources.database.as_uri()}?mode=ro", uri=True)) as connection:
            return dict(connection.execute("SELECT article, cents FROM purchases ORDER BY article"))

    def read_http(self, call: StepCall) -> Quotes:
        """A supplier's price list."""
        self._begin(call)
        return get_json(f"{self._sources.http}/quotes", call)

    def read_late(self, call: StepCall) -> Quotes:
        """A supplier that takes the request and never answers it."""
        self._begin(call)
        return get_json(f"{self._sources.http}/late", call)

    def read_file(self, call: StepCall) -> Quotes:
        """A supplier's price list that came by mail."""
        self._begin(call)
        with self._sources.file.open(encoding="utf-8", newline="") as rows:
            return {row["article"]: int(row["cents"]) for row in csv.DictReader(rows)}

    def read_stream(self, call: StepCall) -> Quotes:
        """A market's ticker: JSON lines, the last price of an article counts. One that breaks off is tried again."""
        self._begin(call)
        quotes: Quotes = {}
        with create_connection(self._sources.stream, timeout=seconds_left(call)) as connection:
            for line in connection.makefile("rb"):
                tick = json.loads(line)
                if "end" in tick:
                    return quotes
                quotes[tick["article"]] = tick["cents"]
        raise ConnectionError(f"the ticker broke off after {len(quotes)} articles")

    # What is made of them

    def gather(self, results: dict[str, Quotes], expected: list[str], call: StepCall) -> dict[str, Any]:
        """What is there when all have answered, or the deadline has passed."""
        self._begin(call)
        return {"quotes": results, "missing": [source for source in expected if source not in results]}

    def merge(self, quotes: dict[str, Quotes], call: StepCall) -> dict[str, Any]:
        """By article, the best quote and whose it is."""
        self._begin(call)
        best: dict[str, Any] = {}
        for source, offers in sorted(quotes.items()):
            for article, cents in offers.items():
                if article not in best or cents < best[article]["cents"]:
                    best[article] = {"cents": cents, "from": source}
        return best

    def union(self, quotes: dict[str, Quotes], call: StepCall) -> list[str]:
        """The articles that anybody has."""
        self._begin(call)
        return anybodys(quotes)

    def intersect(self, quotes: dict[str, Quotes], call: StepCall) -> list[str]:
        """The articles that all have."""
        self._begin(call)
        return [article for article in anybodys(quotes) if all(article in offers for offers in quotes.values())]

    def statistics(self, quotes: dict[str, Quotes], call: StepCall) -> dict[str, Any]:
        """By article: how many quotes, the lowest and the highest, their median and mean."""
        self._begin(call)
        found = {}
        for article in anybodys(quotes):
            cents = [offers[article] for offers in quotes.values() if article in offers]
            found[article] = {
                "quotes": len(cents),
                "lowest": min(cents),
                "highest": max(cents),
                "median": statistics.median(cents),
                "mean": round(statistics.fmean(cents), 2),
            }
        return found

    def report(self, call: StepCall, **results: Any) -> str:
        """Write all of it to a file; returns the file's name."""
        self._begin(call)
        return write(self._folder / "report.json", json.dumps(results, indent=2, sort_keys=True) + "\n").name

    def _begin(self, call: StepCall) -> None:
        note(self._folder, call.effect_id, call.step)


def get_json(url: str, call: StepCall) -> Quotes:
    """A thread can't be broken off, so it waits no longer than its attempt may take."""
    with urlopen(url, timeout=seconds_left(call)) as response:
        found: Quotes = json.load(response)
        return found


def seconds_left(call: StepCall) -> float:
    return max(call.deadline_ns / 1e9 - time.time(), 0.1)


def anybodys(quotes: dict[str, Quotes]) -> list[str]:
    return sorted(set().union(*quotes.values()))
