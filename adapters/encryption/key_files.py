"""Files of keys: written whole or not at all, readable by their user alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from statewright.adapters.encryption.keyring import IDENTITIES, key_text, new_entry, parse_keys
from statewright.engine.cipher import KEY_FILE
from statewright.engine.errors import UnavailableError

_HEAD = "# Statewright's key ring: the first key encrypts, all decrypt; `identities` stays. Keep a copy elsewhere.\n"


def add_key(path: str) -> str:
    """Put a new key first in the file, which is made if there is none; its name. Raises `InvalidError` for a file that
    is no key ring, `UnavailableError` for one that can't be written."""
    target = Path(path)
    if target.exists():
        text = key_text({KEY_FILE: path}) or ""
        keys, _ = parse_keys(text)
        name = next(f"k{number}" for number in range(len(keys) + 1, 10_000) if f"k{number}" not in keys)
        body = "".join(f"{line}\n" for line in text.splitlines() if line.strip() and not line.startswith("#"))
    else:
        name, body = "k1", f"{new_entry(IDENTITIES)}\n"
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{_HEAD}{new_entry(name)}\n{body}")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UnavailableError(f"the key file '{path}' can't be written: {error.strerror}") from error
    return name
