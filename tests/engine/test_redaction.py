"""No credential is shown."""

from __future__ import annotations

import pytest

from statewright.engine.redaction import redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://ann:geheim@localhost:4222", "nats://***@localhost:4222"),
        ("nats://t0ken@localhost:4222", "nats://***@localhost:4222"),
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("postgresql://app:p@ss/w0rd@db/approvals", "postgresql://***@db/approvals"),
        (
            "postgresql://db/approvals?user=app&password=geheim&x=1",
            "postgresql://db/approvals?user=app&password=***&x=1",
        ),
        ("sqlite:////home/a@b/store.db", "sqlite:////home/a@b/store.db"),
        (
            "store 'postgresql://app:geheim@db/a' can't be used: no",
            "store 'postgresql://***@db/a' can't be used: no",
        ),
        ("ann@example.org wrote", "ann@example.org wrote"),
    ],
)
def test_the_credentials_of_urls_are_masked(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert "geheim" not in expected
