"""No credential is shown."""

from __future__ import annotations

import pytest

from statewright.adapters.cli.secrets import redacted, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://ann:geheim@localhost:4222", "nats://ann:***@localhost:4222"),
        ("nats://t0ken@localhost:4222", "nats://***@localhost:4222"),
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("postgresql://app:p@ss/w0rd@db/approvals", "postgresql://app:***@db/approvals"),
        (
            "postgresql://db/approvals?user=app&password=geheim&x=1",
            "postgresql://db/approvals?user=app&password=***&x=1",
        ),
        ("sqlite:////home/a@b/store.db", "sqlite:////home/a@b/store.db"),
        (
            "store 'postgresql://app:geheim@db/a' can't be used: no",
            "store 'postgresql://app:***@db/a' can't be used: no",
        ),
        ("ann@example.org wrote", "ann@example.org wrote"),
    ],
)
def test_the_credentials_of_urls_are_masked(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert "geheim" not in expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("nats_token", "geheim", "***"),
        ("nats_password", "", ""),
        ("cipher_key", "geheim", "***"),
        ("cipher_key_file", "/run/secrets/key", "/run/secrets/key"),
        ("nats", "nats://ann:geheim@host", "nats://ann:***@host"),
        ("residents_max", 5, 5),
    ],
)
def test_a_secret_setting_shows_only_that_it_is_set(name: str, value: object, expected: object) -> None:
    assert shown(name, value) == expected
