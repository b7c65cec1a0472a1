"""Commands for encryption at rest: keygen, reencrypt."""

from __future__ import annotations

from statewright.adapters.cli.options import DEFAULTS, Options


def keygen(file: str, /, *, options: Options = DEFAULTS) -> None:
    """Make a file of keys, or put a new key first in one that exists.

    Parameters
    ----------
    file
        The file; it is to be named by STATEWRIGHT_CIPHER_KEY_FILE. Keep a copy elsewhere: without it a store is lost.
    """
    from statewright.adapters.cli import output, wiring

    name = wiring.add_key(file)
    if options.json:
        output.print_json({"file": file, "key": name})
    else:
        print(f"key '{name}' is the first one in {file} now")


def reencrypt(*, options: Options = DEFAULTS) -> None:
    """Encrypt everything in the store with the first key, while no engine runs.

    The store may be plain, or encrypted with any key in STATEWRIGHT_CIPHER_KEY or the file that
    STATEWRIGHT_CIPHER_KEY_FILE names. Older keys are not needed any more afterwards.
    """
    from statewright.adapters.cli import output, wiring

    done = wiring.reencrypt(options)
    if options.json:
        output.print_json(done)
    else:
        print(f"{done.facts:,} facts and {done.rows:,} rows are encrypted with key '{done.key}'")
