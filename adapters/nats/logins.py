"""Logins: the files of an endpoint, made into what the driver is given. No message holds a secret."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from statewright.adapters.nats.endpoint import Endpoint
from statewright.engine.errors import InvalidError


def tls_of(endpoint: Endpoint) -> ssl.SSLContext | None:
    """How to speak TLS; None leaves it to the driver, which does what the server demands. Raises `InvalidError`."""
    if not endpoint.wants_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=endpoint.ca or None)
        if endpoint.cert:
            context.load_cert_chain(endpoint.cert, endpoint.key, password=_no_password)
    except (OSError, ValueError) as error:  # An `SSLError` is an `OSError`.
        raise InvalidError(f"the TLS files for {endpoint.url} can't be used: {error}") from error
    return context


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the key is encrypted, expected one without a password")


def seed_of(endpoint: Endpoint) -> str:
    """The seed in the nkey or creds file, "" without one. Raises `InvalidError` if what signs with it is not
    installed, or the file holds none."""
    path = endpoint.nkey or endpoint.creds
    if not path:
        return ""
    try:
        import nkeys
    except ImportError as error:
        raise InvalidError('nkeys and creds need the nkeys package: pip install "statewright[nkeys]"') from error
    try:
        text = Path(path).read_text(encoding="ascii")
        seed = re.search(r"SU[A-Z2-7]{56}", text)
        found = seed.group() if seed else ""
        nkeys.from_seed(bytearray(found.encode()))  # type: ignore[no-untyped-call]
        if endpoint.creds and "BEGIN NATS USER JWT" not in text:
            raise ValueError
        return found
    except Exception:
        what = "a user's JWT and seed, as `nsc generate creds` writes" if endpoint.creds else "a user's seed (SU…)"
        raise InvalidError(f"expected the file '{path}' to hold {what}") from None


def shown_login(endpoint: Endpoint) -> str:
    """What was shown to the server, without the secret."""
    if endpoint.user:
        return f"user '{endpoint.user}' with this password"
    for name in ("creds", "nkey"):
        if path := getattr(endpoint, name):
            return f"the {name} file '{path}'"
    if endpoint.token:
        return "this token"
    return f"the certificate '{endpoint.cert}' without a login" if endpoint.cert else "to be used without a login"
