"""The command `schema`: the published JSON Schema, as it lies in the package."""

from __future__ import annotations

from statewright.adapters.cli.options import DEFAULTS, Options


def schema(*, options: Options = DEFAULTS) -> None:
    """Print the JSON Schema of a chart's YAML or JSON form, for editors.

    Write it to a file, and name that file in a chart's first line: `# yaml-language-server: $schema=chart.schema.json`.
    """
    from importlib import resources

    text = resources.files("statewright.statecharts").joinpath("chart.schema.json").read_text(encoding="utf-8")
    if not options.json:
        print(text, end="")
        return
    import json

    print(json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")))
