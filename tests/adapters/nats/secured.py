"""Real nats-servers with logins and TLS, and the certificates, nkeys and JWTs for them, made on the spot."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import ipaddress
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from statewright.adapters.nats.server import find_binary
from tests.adapters.nats.support import eventually


@asynccontextmanager
async def server(folder: Path, config: str, name: str = "s", port: int = -1) -> AsyncIterator[str]:
    """A nats-server on loopback with `config` beside what it needs to run; its host and port."""
    async with server_process(folder, config, name, port) as (_, address):
        yield address


@asynccontextmanager
async def server_process(
    folder: Path, config: str, name: str = "s", port: int = -1
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    home = folder / name
    home.mkdir(exist_ok=True)
    path = home / "server.conf"
    path.write_text(
        f'host: 127.0.0.1\nport: {port}\nserver_name: {name}\nports_file_dir: "{home}"\n'
        + config.replace("STORE", str(home / "js"))
    )
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(find_binary(), "-c", str(path), stdout=log, stderr=log)
    try:
        ports = home / f"nats-server_{process.pid}.ports"
        text = await eventually(lambda: ports.exists() and ports.read_text(), f"the ports file: {home / 'log'}")
        yield process, f"127.0.0.1:{json.loads(text)['nats'][0].rpartition(':')[2]}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Pair(NamedTuple):
    """An nkey."""

    seed: str
    public: str

    def sign(self, data: bytes) -> bytes:
        pair: Any = nkeys.from_seed(bytearray(self.seed.encode()))
        signature: bytes = pair.sign(data)
        return signature


def nkey(prefix: int) -> Pair:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    pair: Any = nkeys.from_seed(bytearray(seed))
    return Pair(bytes(seed).decode(), pair.public_key.decode())


def user_nkey() -> Pair:
    return nkey(nkeys.PREFIX_BYTE_USER)


def jwt(issuer: Pair, subject: str, name: str, claims: dict[str, Any]) -> str:
    body: dict[str, Any] = {
        "iat": 1,
        "iss": issuer.public,
        "name": name,
        "sub": subject,
        "nats": {**claims, "version": 2},
    }
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_url64(json.dumps({'typ': 'JWT', 'alg': 'ed25519-nkey'}).encode())}.{_url64(json.dumps(body).encode())}"
    return f"{signed}.{_url64(issuer.sign(signed.encode()))}"


class Operator:
    """An operator with one account: the server's configuration, and creds files for the account's users."""

    def __init__(self) -> None:
        self._operator = nkey(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = nkey(nkeys.PREFIX_BYTE_ACCOUNT)
        system = nkey(nkeys.PREFIX_BYTE_ACCOUNT)
        anything = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1}
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1, "wildcards": True}
        account = {"type": "account", "limits": {**anything, **storage}}
        operator = jwt(
            self._operator, self._operator.public, "op", {"type": "operator", "system_account": system.public}
        )
        bare = {"type": "account", "limits": anything}
        self.config = (
            f"operator: {operator}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n"
            f"  {self._account.public}: {jwt(self._operator, self._account.public, 'app', account)}\n"
            f"  {system.public}: {jwt(self._operator, system.public, 'sys', bare)}\n}}\n"
        )

    def creds(self, path: Path) -> Path:
        user = user_nkey()
        claims = {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
        text = jwt(self._account, user.public, "engine", claims)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{text}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        return path


class Authority:
    """A certificate authority, and certificates of it in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key, is_ca=True)
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(self._sign(subject, key, is_ca=False).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
