"""TLS and SASL of `[kafka.client]`, written for librdkafka, as Faust wants them."""

import ssl
from typing import Any

import faust

from engine.config import Config, client_settings
from engine.errors import ConfigError

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def credentials_of(config: Config) -> Any:
    """Faust's broker_credentials; None for plaintext. ConfigError for what is not spoken, or files that cannot be read.

    Known are security.protocol, ssl.ca.location, ssl.certificate.location, ssl.key.location, ssl.key.password,
    sasl.mechanism, sasl.username and sasl.password.
    """
    client = {key: str(value) for key, value in client_settings(config).items()}
    protocol = client.get("security.protocol", "plaintext").lower()
    if protocol == "plaintext":
        return None
    context = _context(client) if protocol in ("ssl", "sasl_ssl") else None
    if protocol == "ssl":
        return faust.SSLCredentials(context)
    mechanism = client.get("sasl.mechanism", client.get("sasl.mechanisms", ""))
    if protocol not in ("sasl_ssl", "sasl_plaintext") or mechanism not in MECHANISMS:
        raise ConfigError(
            f"kafka.client: control speaks SSL, and SASL with {', '.join(MECHANISMS)}, not {protocol} {mechanism}"
        )
    return faust.SASLCredentials(
        username=client.get("sasl.username"),
        password=client.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=context,
    )


def _context(client: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=client.get("ssl.ca.location"))
        if "ssl.certificate.location" in client:
            context.load_cert_chain(
                client["ssl.certificate.location"], client.get("ssl.key.location"), client.get("ssl.key.password")
            )
    except OSError as error:
        raise ConfigError(f"kafka.client.ssl: {error}") from error
    return context
