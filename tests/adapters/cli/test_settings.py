"""Settings come from flags, the environment and defaults, and are checked at once."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from statewright.adapters.cli.options import Options, ServeOptions
from statewright.adapters.cli.settings import SETTINGS, known_variables, read_settings, shown, unknown_variables
from statewright.adapters.nats.health import Operating
from statewright.engine.errors import InvalidError
from statewright.engine.residents import RESIDENTS_MAX
from tests.adapters.cli.conftest import Cli

ROOT = Path(__file__).resolve().parents[3]


def test_a_flag_goes_before_the_environment_and_that_before_the_default() -> None:
    environment = {
        "STATEWRIGHT_LOG_LEVEL": "debug",
        "STATEWRIGHT_LOG_FORMAT": "json",
        "STATEWRIGHT_READY_LAG": "",
        "STATEWRIGHT_CHARTS": "a.yaml, b.yaml",
    }
    settings, lines = read_settings(Options(), {"log_level": "error", "shutdown_timeout": "1m30s"}, environment)
    assert (settings.log_level, settings.log_format, settings.shutdown_timeout) == ("error", "json", 90.0)
    assert (settings.charts, settings.handlers) == (["a.yaml", "b.yaml"], [])
    origins = {line.setting: line.origin for line in lines if not line.setting.startswith("nats_")}
    assert origins == {
        "store": "default",
        "nats": "default",
        "charts": "environment",
        "handlers": "default",
        "plugins": "default",
        "worker": "default",
        "log_level": "flag",
        "log_format": "environment",
        "shutdown_timeout": "flag",
        "signals_every": "default",
        "ready_lag": "default",
        "residents_max": "default",
    }


def test_the_defaults_are_those_of_the_library() -> None:
    settings, _ = read_settings(Options(), {}, {})
    assert Operating(settings.worker, settings.signals_every, settings.ready_lag) == Operating()
    assert settings.residents_max == RESIDENTS_MAX


def test_all_faults_are_told_at_once_with_what_was_expected_and_where() -> None:
    environment = {"STATEWRIGHT_LOG_LEVEL": "loud", "STATEWRIGHT_WORKER": "a b"}
    given = {"signals_every": "1", "residents_max": "-1", "shutdown_timeout": "2h"}
    with pytest.raises(InvalidError) as caught:
        read_settings(Options(store="mongo://app:geheim@db/x", nats="ftp://ann:geheim@h"), given, environment)
    message = str(caught.value)
    assert message.startswith("7 settings are wrong: --store: expected a store URL with one of the schemes")
    for part in (
        "'mongo://***@db/x'",
        "--nats: expected a NATS URL",
        "STATEWRIGHT_WORKER: expected a worker name",
        "STATEWRIGHT_LOG_LEVEL: expected one of debug, info, warning, error, got 'loud'",
        "--shutdown-timeout: expected a duration from 0s to 1h, such as 30s, got '2h'",
        "--signals-every: expected 0s for none, or a duration from 100ms to 1h, such as 30s, got '1'",
        "--residents-max: expected a whole number from 0 to 10,000,000, got '-1'",
    ):
        assert part in message
    assert "geheim" not in message


def test_variables_without_a_flag_are_checked_with_the_others(tmp_path: Path) -> None:
    environment = {
        "STATEWRIGHT_WORKER": "a b",
        "STATEWRIGHT_RATE_ACTOR": "many",
        "STATEWRIGHT_NATS_REPLICAS": "2",
        "STATEWRIGHT_CIPHER_KEY_FILE": str(tmp_path / "gone"),
    }
    with pytest.raises(InvalidError) as caught:
        read_settings(Options(), {}, environment)
    message = str(caught.value)
    assert message.startswith("4 settings are wrong: STATEWRIGHT_WORKER: expected a worker name of the form")
    assert message.count("got 'a b'") == 1
    for part in (
        "expected STATEWRIGHT_RATE_ACTOR to be a number of requests a second, got 'many'",
        "expected STATEWRIGHT_NATS_REPLICAS to be 1, 3 or 5, got '2'",
        f"the key file '{tmp_path / 'gone'}' can't be read",
    ):
        assert part in message
    for variable, wrong in (("STATEWRIGHT_ACTORS", "who"), ("STATEWRIGHT_COMPRESSOR", "lz")):
        with pytest.raises(InvalidError, match=f"expected {variable} to be"):
            read_settings(Options(), {}, {variable: wrong})


@pytest.mark.parametrize("nats", [None, "embedded"])
def test_a_login_for_no_server_is_refused(nats: str | None) -> None:
    wrong = r"2 settings are wrong: --nats-creds: expected --nats with the URL of the server that it is for, got none; "
    with pytest.raises(InvalidError, match=wrong):
        read_settings(
            Options(nats=nats, nats_creds="user.creds", nats_ca="ca.pem"), {}, {"STATEWRIGHT_NATS_CA": "ca.pem"}
        )
    read_settings(Options(nats="nats://localhost:4222", nats_creds="user.creds"), {}, {})


def test_a_variable_that_is_nearly_a_setting_is_told_others_are_left_alone() -> None:
    environment = {"STATEWRIGHT_LOGLEVEL": "info", "STATEWRIGHT_SERVICE_HOST": "10.0.0.1", "STATEWRIGHT_STORE": "x"}
    assert unknown_variables(environment) == [
        "STATEWRIGHT_LOGLEVEL is no setting and is passed over; did you mean STATEWRIGHT_LOG_LEVEL?"
    ]


def test_they_are_shown_with_their_origin_and_without_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEWRIGHT_NATS_URL", "nats://ann:geheim@localhost")
    result = cli("serve", "--print-settings", "--json", "--ready-lag", "5s", "--chart", "chart.yaml")
    shown = {line["setting"]: (line["value"], line["origin"]) for line in result.lines}
    assert result.code == 0
    assert shown["nats"] == ("nats://***@localhost", "environment")
    assert shown["ready_lag"] == ("5s", "flag")
    assert shown["charts"] == (["chart.yaml"], "flag")
    assert "geheim" not in cli("serve", "--print-settings").out
    monkeypatch.setenv("STATEWRIGHT_LOGLEVEL", "info")
    nearly = cli("serve", "--print-settings", "--json")
    assert (nearly.code, len(nearly.lines)) == (0, len(shown))
    assert "STATEWRIGHT_LOGLEVEL is no setting and is passed over" in nearly.err
    bad = cli("serve", "--print-settings", "--log-level", "loud")
    assert (bad.code, bad.out) == (2, "")
    assert "expected one of debug" in bad.err


def test_every_setting_is_documented_and_has_its_flag() -> None:
    documented = (ROOT / "docs" / "operations.md").read_text()
    for setting in SETTINGS:
        assert f"`{setting.flag}`" in documented
    for variable in known_variables():
        assert f"`{variable}`" in documented
    flags = {field.name for field in fields(ServeOptions)}
    assert {setting.name for setting in SETTINGS} - flags == {"charts", "handlers", "plugins"}


def test_an_empty_variable_is_one_that_is_not_set(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in known_variables():
        monkeypatch.setenv(variable, "")
    result = cli("serve", "--print-settings", "--json")
    assert {line["origin"] for line in result.lines} == {"default"}
    assert result.lines[0]["value"] == "sqlite:///statewright.db"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("nats_token", "geheim", "***"),
        ("nats_password", "", ""),
        ("cipher_key", "geheim", "***"),
        ("nats_key", "/etc/nats/key.pem", "/etc/nats/key.pem"),
        ("cipher_key_file", "/run/secrets/key", "/run/secrets/key"),
        ("nats", "nats://ann:geheim@host", "nats://***@host"),
        ("residents_max", 5, 5),
    ],
)
def test_a_secret_setting_shows_only_that_it_is_set(name: str, value: object, expected: object) -> None:
    assert shown(name, value) == expected
