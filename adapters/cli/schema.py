"""The command `schema`: the published JSON Schema, as it lies in the package."""

from __future__ import annotations

from typing import Annotated

from statewright.adapters.cli.options import DEFAULTS, Flag, Options


def schema(*, workflow: Annotated[bool, Flag] = False, options: Options = DEFAULTS) -> None:
    """Print the JSON Schema of a chart's (or a workflow's) YAML or JSON form, for editors.

    Write it to a file, and name that file in a chart's first line: `# yaml-language-server: $schema=chart.schema.json`.

    Parameters
    ----------
    workflow
        That of a workflow of steps instead.
    """
    from importlib import resources

    package, name = ("statewright.statecharts", "chart.schema.json")
    if workflow:
        package, name = ("statewright.statecharts.workflows", "workflow.schema.json")
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    if not options.json:
        print(text, end="")
        return
    import json

    print(json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")))
