"""The key ring: encrypts what a store keeps, and decrypts what any of its keys has encrypted.

Key ring text: entries `name:base64 of 32 bytes`, separated by whitespace, commas or lines; `#` starts a comment line.
The first key encrypts, all decrypt; each ciphertext carries the name of its key. The entry `identities` is
needed too and never changes: with it ids of events are encrypted so that equal ids stay equal, and a repeated event
meets the one that was recorded, whichever key was the first one then.

AES-256-GCM-SIV with random nonces (a nonce that repeats would show that two values are equal, nothing more); ids with
AES-SIV, which needs none. Invariants: a value decrypts only at the place for which it was encrypted; no message holds
a key or a plaintext.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from statewright.engine.cipher import KEY_FILE, KEYS, MAGIC, TOKEN, Ring, key_name
from statewright.engine.errors import InvalidError

IDENTITIES = "identities"
KEY_BYTES = 32

_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_INSTALL = 'encryption needs the cryptography package: pip install "statewright[encryption]"'


class KeyRing(Ring):
    """Made by the `eventsourcing` library, when CIPHER_TOPIC names it, from the settings in the environment.

    Raises `InvalidError` for a key ring that can't be read, or one that is missing.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        text = key_text(environment)
        if text is None:
            raise InvalidError(f"expected {KEYS} or {KEY_FILE} to be set")
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher as Block
            from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, AESSIV
            from cryptography.hazmat.primitives.ciphers.algorithms import AES
            from cryptography.hazmat.primitives.ciphers.modes import ECB
        except ImportError as error:
            raise InvalidError(_INSTALL) from error
        keys, identities = parse_keys(text)
        self._identities = identities
        self._aeads = {name: AESGCMSIV(key) for name, key in keys.items()}
        self.first = next(iter(keys))
        """The name of the key that encrypts."""
        self._prefix = MAGIC + bytes([len(self.first)]) + self.first.encode()
        self._siv = AESSIV(self.derived("ids", 64))
        # One block of a digest, which is as good as random: what ECB lacks does not matter, and 16 bytes stay 16 bytes.
        self._block = Block(AES(self.derived("digests", 32)), ECB())

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls({KEYS: text})

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._aeads)})"

    def derived(self, purpose: str, size: int) -> bytes:
        """A key for `purpose` that stays the same for the store's life."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), size, None, f"statewright {purpose}".encode()).derive(self._identities)

    # Bytes, as the library's `Cipher`

    def encrypt(self, plaintext: bytes, place: str = "") -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return self._prefix + nonce + self._aeads[self.first].encrypt(nonce, plaintext, place.encode())

    def decrypt(self, ciphertext: bytes, place: str = "") -> bytes:
        """Raises `InvalidError`: a key that is not in the ring, or bytes that were not encrypted for this place."""
        from cryptography.exceptions import InvalidTag

        name = key_name(ciphertext)
        if name not in self._aeads:
            raise InvalidError(
                f"expected a value encrypted with one of the keys {', '.join(self._aeads)}, got '{name}'"
            )
        start = len(MAGIC) + 1 + len(name)
        nonce, sealed = ciphertext[start : start + _NONCE_BYTES], ciphertext[start + _NONCE_BYTES :]
        try:
            return self._aeads[name].decrypt(nonce, sealed, place.encode())
        except (InvalidTag, ValueError):
            raise InvalidError(f"a value encrypted with key '{name}' is not what was written here") from None

    # Texts of columns

    def seal(self, text: str, place: str) -> str:
        return TOKEN + base64.urlsafe_b64encode(self.encrypt(text.encode(), place)).decode()

    def unseal(self, text: str, place: str) -> str:
        return self.decrypt(_decoded(text), place).decode()

    # Identities: the same each time

    def seal_id(self, text: str, place: str) -> str:
        return TOKEN + base64.urlsafe_b64encode(self._siv.encrypt(text.encode(), [place.encode()])).decode()

    def unseal_id(self, text: str, place: str) -> str:
        from cryptography.exceptions import InvalidTag

        try:
            return self._siv.decrypt(_decoded(text), [place.encode()]).decode()
        except InvalidTag:
            raise InvalidError(f"an event's id was not encrypted with this key ring's '{IDENTITIES}'") from None

    def seal_digest(self, digest: bytes) -> bytes:
        return self._block.encryptor().update(digest)

    def unseal_digest(self, digest: bytes) -> bytes:
        return self._block.decryptor().update(digest)


def key_text(environment: Mapping[str, str]) -> str | None:
    """The key ring's text that the settings give; None if they give none. Raises `InvalidError` for an unreadable
    file, and for one that others than its user can read."""
    text, path = environment.get(KEYS), environment.get(KEY_FILE)
    if text or not path:
        return text or None
    try:
        if os.stat(path).st_mode & 0o077:
            raise InvalidError(f"expected the key file '{path}' to be readable by its user only: chmod 600 '{path}'")
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidError(f"the key file '{path}' can't be read: {why}") from error


def parse_keys(text: str) -> tuple[dict[str, bytes], bytes]:
    """The keys by name, first one first, and the one for identities. Raises `InvalidError`, without a key in it."""
    keys: dict[str, bytes] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for number, entry in enumerate(re.split(r"[\s,]+", "\n".join(lines).strip()), 1):
        name, separator, encoded = entry.partition(":")
        if not separator or not _NAME.fullmatch(name):
            raise InvalidError(
                f"expected entry {number} of the key ring to be name:base64, as `statewright keygen` writes"
            )
        try:
            key = base64.b64decode(encoded, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise InvalidError(f"expected key '{name}' of the key ring to be {KEY_BYTES} bytes in base64")
        if name in keys:
            raise InvalidError(f"expected each key of the key ring once, got '{name}' twice")
        keys[name] = key
    identities = keys.pop(IDENTITIES, None)
    if identities is None or not keys:
        raise InvalidError(
            f"expected the key ring to hold a key and an entry '{IDENTITIES}'; `statewright keygen` makes one"
        )
    return keys, identities


def new_entry(name: str) -> str:
    """A fresh key as an entry of a key ring."""
    return f"{name}:{base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.removeprefix(TOKEN))
    except (binascii.Error, ValueError):
        raise InvalidError("an encrypted text is damaged") from None
