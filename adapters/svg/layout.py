"""Runs elkjs, the layout engine in `elkjs/`, in QuickJS: a graph in ELK's JSON goes in, the same with places comes out.

Every layout gets a JavaScript context of its own, with bounds on time and memory, and nothing of the outside: no
files, no network, no clock. The same graph is laid out the same way on every machine.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec

from statewright.statecharts.errors import StatewrightError

SECONDS_MAX = 180
MEMORY_BYTES_MAX = 2 * 1024**3
STACK_BYTES_MAX = 4 * 1024**2
_HERE = "statewright.adapters.svg"

# elkjs speaks to its worker by messages that come later; here `later` is a list, and nothing runs beside it.
_BEFORE = """
var later = [], answer = "", module = {exports: {}}, exports = module.exports, global = globalThis;
function setTimeout(task) { later.push(task); return 0; }
function clearTimeout() {}
"""
_AFTER = """
function layOut(text) {
  var worker = new module.exports.Worker();
  worker.onmessage = function (message) {
    var data = message.data;
    if (data.error) { throw new Error(String(data.error.message || data.error)); }
    if (data.id === 1) { answer = JSON.stringify(data.data); }
  };
  worker.postMessage({id: 0, cmd: "register", algorithms: ["layered"]});
  worker.postMessage({id: 1, cmd: "layout", graph: JSON.parse(text)});
  while (later.length) { later.shift()(); }
  return answer;
}
"""


class LayoutError(StatewrightError):
    """A chart could not be laid out. The message says why."""


def lay_out(graph: dict[str, Any]) -> dict[str, Any]:
    """`graph` with a place for every node, edge and label. Raises `LayoutError`, also without the extra `svg`."""
    try:
        import quickjs
    except ImportError as error:
        raise LayoutError("drawing needs a JavaScript engine: pip install 'statewright[svg]'") from error
    try:
        context = quickjs.Context()
        context.set_memory_limit(MEMORY_BYTES_MAX)
        context.set_max_stack_size(STACK_BYTES_MAX)
        context.set_time_limit(SECONDS_MAX)
        context.eval(_BEFORE)
        context.eval(files(_HERE).joinpath("elkjs", "elk-worker.min.js").read_text(encoding="utf-8"))
        context.eval(_AFTER)
        answer = context.get("layOut")(msgspec.json.encode(graph).decode())
    except (quickjs.JSException, quickjs.StackOverflow) as error:
        reason = str(error).partition("\n")[0][:200]
        raise LayoutError(
            f"expected a chart that can be laid out within {SECONDS_MAX} s and {MEMORY_BYTES_MAX >> 20} MiB, "
            f"but elkjs failed: {reason} (--format mermaid needs no layout)"
        ) from error
    laid_out: dict[str, Any] = msgspec.json.decode(answer)
    return laid_out
