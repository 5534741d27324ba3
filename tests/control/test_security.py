"""TLS and SASL as Faust has them, from what librdkafka is told."""

import ssl
from pathlib import Path

import pytest

from engine.config import parse_config
from engine.control.security import credentials_of
from engine.errors import ConfigError


def credentials(settings: str, environment: dict[str, str] | None = None) -> object:
    return credentials_of(parse_config(f"[kafka.client]\n{settings}", Path(), environment or {}))


def test_plaintext_needs_none() -> None:
    assert credentials('"linger.ms" = 5') is None


def test_sasl_over_tls() -> None:
    made = credentials(
        '"security.protocol" = "SASL_SSL"\n"sasl.mechanism" = "SCRAM-SHA-512"\n"sasl.username" = "tidegate"',
        {"TIDEGATE__KAFKA__CLIENT__SASL_PASSWORD": "secret"},
    )
    assert (made.username, made.password, made.mechanism.value) == ("tidegate", "secret", "SCRAM-SHA-512")  # type: ignore[attr-defined]
    assert made.ssl_context.verify_mode == ssl.CERT_REQUIRED  # type: ignore[attr-defined]
    assert made.protocol.value == "SASL_SSL"  # type: ignore[attr-defined]
    assert "secret" not in repr(made)


def test_tls_alone() -> None:
    assert credentials('"security.protocol" = "ssl"').protocol.value == "SSL"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "settings",
    [
        '"security.protocol" = "SASL_SSL"\n"sasl.mechanism" = "GSSAPI"',
        '"security.protocol" = "SASL_PLAINTEXT"',
        '"security.protocol" = "other"',
        '"security.protocol" = "ssl"\n"ssl.ca.location" = "/nowhere/ca.pem"',
    ],
)
def test_what_is_not_spoken_or_not_there_is_refused(settings: str) -> None:
    with pytest.raises(ConfigError, match=r"kafka\.client"):
        credentials(settings)
