"""Commands that look after the store: backup, verify, prune, restore."""

from __future__ import annotations

import sys
from time import time_ns
from typing import Annotated

from statewright.adapters.cli.options import DEFAULTS, Options, Repeated, invalid, parse_age

REFUSED = 1


def backup(dest: str, /, *, options: Options = DEFAULTS) -> None:
    """Copy the store to a new file, as of one moment, while it is in use; the copy is verified.

    Parameters
    ----------
    dest
        The file; it must not exist.
    """
    from statewright.adapters.cli import output, wiring

    size, found = wiring.back_up(options, dest)
    if options.json:
        figures = {"instances": found.instances, "facts": found.facts, "pruned": found.pruned}
        output.print_json({"backup": dest, "bytes": size, **figures})
        return
    output.console().print(
        f"{output.clean(dest)}: {size:,} bytes, {found.instances:,} instances, {found.facts:,} facts, verified",
        soft_wrap=True,
    )


def verify(*, options: Options = DEFAULTS) -> int:
    """Fold every instance from its facts and compare it with its rows, as of one moment. Reads only, also beside a
    running engine. Exit code 1 if anything differs."""
    from statewright.adapters.cli import output
    from statewright.engine.verify import verify_store

    found = verify_store(options.store)
    if options.json:
        output.print_json(found)
    else:
        console = output.console()
        console.print(
            f"{found.instances:,} instances, {found.facts:,} facts, {found.effects:,} effects ({found.results:,} with "
            f"a result), {found.pruned:,} pruned",
            soft_wrap=True,
        )
        for difference in found.differences:
            console.print(output.clean(difference), soft_wrap=True)
        console.print(f"{len(found.differences):,} differences" if found.differences else "all is as the facts say")
    return 0 if found.is_true else REFUSED


async def prune(
    *,
    older_than: str,
    archive: str,
    definition: str | None = None,
    status: Annotated[list[str] | None, Repeated] = None,
    options: Options = DEFAULTS,
) -> None:
    """Move instances that have ended to an archive. An instance stays while a relative of it runs, or an effect of it
    is still to be performed, and until every projection has seen it. Its id stays taken.

    Parameters
    ----------
    older_than
        Only what ended at least this long ago: 90d, 12h.
    archive
        A new file, FILE.jsonl.gz.
    definition
        Only instances of this definition.
    status
        Only those that are completed, failed or cancelled; may be given several times.
    """
    from statewright.adapters.cli import output, wiring
    from statewright.adapters.cli.pruning import prune as prune_all
    from statewright.engine.events import ENDED
    from statewright.engine.recorder import EndedFilter
    from statewright.engine.redaction import redacted

    age_ns = parse_age("--older-than", older_than)
    for one in status or ():
        if one not in ENDED:
            raise invalid(f"expected --status to be one of {', '.join(sorted(ENDED))}, got {one!r}")
    wheres = [
        EndedFilter(status=one, ended_before=time_ns() - age_ns, definition=definition)
        for one in dict.fromkeys(status or sorted(ENDED))
    ]
    async with wiring.pruning(options) as (engine, pruner):
        done = await prune_all(engine, pruner, wheres, archive, redacted(options.store))
    if options.json:
        output.print_json(done)
        return
    where = f", archived in {output.clean(archive)}" if done.archive is not None else ""
    left = f"; {done.left:,} changed meanwhile and stay" if done.left else ""
    output.console().print(f"{done.pruned:,} instances with {done.facts:,} facts pruned{where}{left}", soft_wrap=True)


async def restore(archive: str, /, *, options: Options = DEFAULTS) -> int:
    """Bring back what was pruned from this very store, while no engine runs. What is there already is left as it is;
    exit code 1 if that differs from the archive.

    Parameters
    ----------
    archive
        The file.
    """
    from statewright.adapters.cli import output, wiring
    from statewright.adapters.cli.pruning import restore as restore_all

    async with wiring.owning(options) as engine:
        done = await restore_all(engine, archive)
    if options.json:
        output.print_json(done)
    else:
        console = output.console()
        console.print(f"{done.restored:,} instances restored, {done.present:,} were there already")
        for reason in done.refused.values():
            console.print(output.clean(reason), soft_wrap=True)
    if done.torn:
        print(
            f"{output.clean(archive)} ends in the middle: either a prune was killed there, and what is missing was "
            "never pruned, or the file was cut off since, and there is more in the whole one",
            file=sys.stderr,
        )
    return REFUSED if done.refused else 0
