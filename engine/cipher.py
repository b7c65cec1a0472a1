"""Encryption at rest, as the engine sees it: the port, its settings, and how what is encrypted is told from what isn't.

The implementation is found by entry point (group `statewright.ciphers`) when the settings name a key.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from importlib.metadata import entry_points

from eventsourcing.persistence import Cipher
from eventsourcing.utils import resolve_topic

from statewright.engine.errors import InvalidError

CIPHERS = "statewright.ciphers"
KEYS = "STATEWRIGHT_CIPHER_KEY"
"""Setting: the key ring's text. It takes precedence over the file."""
KEY_FILE = "STATEWRIGHT_CIPHER_KEY_FILE"
"""Setting: the path of a file that holds it."""
COMPRESSOR = "STATEWRIGHT_COMPRESSOR"
"""Setting: "zlib" compresses facts and snapshots. Without it what was compressed is read all the same."""
COMPRESSORS = ("zlib",)
TOKEN = "sealed:"
"""What an encrypted text begins with."""
MAGIC = b"\x93SW1"
"""What encrypted bytes begin with: no JSON, and no UTF-8, begins so. A byte with the length of the key's name, and the
name, follow."""


class Ring(Cipher):
    """What encrypts a store: the `eventsourcing` library's `Cipher`, and what rows need beyond it. `place` says where a
    value belongs: it decrypts nowhere else. All raise `InvalidError` for what can't be decrypted."""

    first: str
    """The name of the key that encrypts."""

    @abstractmethod
    def derived(self, purpose: str, size: int) -> bytes:
        """A key of `size` bytes for `purpose`, the same for the store's life."""

    @abstractmethod
    def encrypt(self, plaintext: bytes, place: str = "") -> bytes: ...

    @abstractmethod
    def decrypt(self, ciphertext: bytes, place: str = "") -> bytes: ...

    @abstractmethod
    def seal(self, text: str, place: str) -> str:
        """A text that begins with `TOKEN` and needs no escapes in JSON."""

    @abstractmethod
    def unseal(self, text: str, place: str) -> str: ...

    @abstractmethod
    def seal_id(self, text: str, place: str) -> str:
        """Like `seal`, but the same each time, whichever key is the first."""

    @abstractmethod
    def unseal_id(self, text: str, place: str) -> str: ...

    @abstractmethod
    def seal_digest(self, digest: bytes) -> bytes:
        """16 bytes for 16 bytes, the same each time."""

    @abstractmethod
    def unseal_digest(self, digest: bytes) -> bytes: ...


def is_sealed(value: str | bytes) -> bool:
    """Whether it is an encrypted text or encrypted bytes."""
    return value.startswith(MAGIC) if isinstance(value, bytes) else value.startswith((TOKEN, f'"{TOKEN}'))


def key_name(ciphertext: bytes) -> str:
    """The name of the key with which it was encrypted."""
    start = len(MAGIC) + 1
    return ciphertext[start : start + ciphertext[start - 1]].decode("ascii", errors="replace")


def environment_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What the settings of encryption and compression mean to the `eventsourcing` library."""
    found: dict[str, str] = {}
    if environment.get(KEYS) or environment.get(KEY_FILE):
        known = {entry.name: entry.value for entry in entry_points(group=CIPHERS)}
        if "keyring" not in known:
            raise InvalidError(f"expected an installed cipher in {CIPHERS}, got none: install Statewright anew")
        found["CIPHER_TOPIC"] = known["keyring"]
    if compressor := environment.get(COMPRESSOR):
        if compressor not in COMPRESSORS:
            raise InvalidError(f"expected {COMPRESSOR} to be {' or '.join(COMPRESSORS)}, got {compressor[:20]!r}")
        found["COMPRESSOR_TOPIC"] = compressor
    return found


def ring_of(environment: Mapping[str, str]) -> Ring:
    """The key ring that the settings give. Raises `InvalidError` if they give none, or one that can't be read."""
    topic = environment_of(environment).get("CIPHER_TOPIC")
    if topic is None:
        raise InvalidError(f"expected {KEYS} or {KEY_FILE} to be set")
    ring: Ring = resolve_topic(topic)(environment)
    return ring
