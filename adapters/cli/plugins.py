"""The command `plugins`: what is installed, found as `Plugins(discover=True)` finds it. Nothing of it is activated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statewright.adapters.cli.options import DEFAULTS, Options

if TYPE_CHECKING:
    from statewright.adapters.cli.wiring import InstalledPlugin

WELL, BROKEN = 0, 1


def plugins(*, options: Options = DEFAULTS) -> int:
    """List the plugins that are installed (entry points `statewright.plugins`), and what is wrong with them. Their
    modules are imported, nothing is activated. Exit 1 if one can't be used."""
    from statewright.adapters.cli import output, wiring

    found = wiring.installed_plugins()
    for plugin in found:
        if options.json:
            output.print_json(plugin)
        else:
            _print(plugin)
    if not found and not options.json:
        print("no plugins are installed")
    return BROKEN if any(plugin.state == "broken" for plugin in found) else WELL


def _print(plugin: InstalledPlugin) -> None:
    from statewright.adapters.cli.output import clean

    about = f": {plugin.description}" if plugin.description else ""
    print(clean(f"{plugin.name} {plugin.version} ({plugin.origin}){about}"))
    lines = [("problem", plugin.problem)] if plugin.problem else []
    lines += [("warning", warning) for warning in plugin.warnings]
    lines += [("needs", need) for need in plugin.dependencies]
    lines += [("can use", need) for need in plugin.optional_dependencies]
    lines += [("method", method) for method in plugin.methods]
    for label, text in lines:
        print(clean(f"  {label}: {text}"))
