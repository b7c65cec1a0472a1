"""The command line that the examples have in common: `python main.py [FOLDER] [--store URL]`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


def run(main: Callable[[Path, str], Awaitable[Any]], what: str) -> None:
    """Runs `main(folder, store URL)`, once. `what` the example does is for `--help`."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="where its files are, and stay: started again there after a crash, it goes on (default: a new folder)",
    )
    parser.add_argument("--store", default="", help="the store's URL (default: a SQLite file in the folder)")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="statewright-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(folder, given.store or store_in(folder)))
    print(f"All files are in {folder}")


def store_in(folder: Path) -> str:
    """The URL of the store in an example's folder."""
    return f"sqlite:///{folder / 'store.db'}"
