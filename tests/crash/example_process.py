"""An example that the kill test kills: `example_process.py NAME`.

It says "loaded" when the example's code is, waits for a line on stdin that says in which folder, runs the example's
`main(folder, store URL)`, and says "result" with what that returned, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import sys
from pathlib import Path

from statewright.adapters.sqlite import store  # noqa: F401  (loaded before it is needed)
from statewright.examples.command import store_in


def run(name: str) -> None:
    main = importlib.import_module(f"statewright.examples.{name}.main").main
    print("loaded", flush=True)
    if not (line := sys.stdin.readline()):
        return
    folder = Path(line.rstrip("\n"))
    with contextlib.redirect_stdout(io.StringIO()):
        found = asyncio.run(main(folder, store_in(folder)))
    print("result", json.dumps(found, sort_keys=True), flush=True)


if __name__ == "__main__":
    run(sys.argv[1])
