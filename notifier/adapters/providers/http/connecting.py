"""Checks the settings that concern the connection, before the first send."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

from notifier.adapters.providers.http.settings import HttpSettings
from notifier.domain.errors import ConfigError

_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


def check_connecting(name: str, settings: HttpSettings) -> None:
    """Raises ConfigError for a proxy, authority or certificate that cannot be used."""
    key = f"providers.{name}"
    _check_proxy(settings.proxy, f"{key}.proxy")
    if settings.ca_file:
        try:
            ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:  # an SSLError is one
            raise ConfigError(
                f"expected a file of CA certificates: {_reason(error)}", key=f"{key}.ca_file"
            ) from error
    if settings.cert_file:
        _check_certificate(settings, key)
    elif settings.key_file or settings.key_password:
        unused = "key_file" if settings.key_file else "key_password"
        raise ConfigError(
            f"is not set, so that {unused} has no effect; set it to the certificate of the key, or "
            f"remove {unused}",
            key=f"{key}.cert_file",
        )
    _check_tls(settings, key)


def _check_tls(settings: HttpSettings, key: str) -> None:
    """Raises ConfigError for a setting of TLS where no TLS is used."""
    if not settings.url.lower().startswith("http://"):  # a template may begin with its scheme
        return
    unused = {
        "ca_file": settings.ca_file and not settings.proxy.lower().startswith("https://"),
        "cert_file": settings.cert_file,
        "http_version": settings.http_version == "2",
    }
    for setting, is_set in unused.items():
        if is_set:
            raise ConfigError(
                "has no effect, because url begins with http://; write https://, or remove "
                f"{setting}",
                key=f"{key}.{setting}",
            )


def _check_proxy(proxy: str, key: str) -> None:
    if not proxy:
        return
    try:
        parts = urlsplit(proxy)
        is_url = parts.scheme in _PROXY_SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not proxy.isascii() or not proxy.isprintable():
        schemes = ", ".join(_PROXY_SCHEMES)
        raise ConfigError(f"expected a URL like http://host:port; schemes: {schemes}", key=key)


def _check_certificate(settings: HttpSettings, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def password() -> str:  # as a text, OpenSSL would ask on the terminal for an empty one
        return settings.key_password

    try:
        context.load_cert_chain(settings.cert_file, settings.key_file or None, password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"expected a certificate in PEM and its key, here or in key_file: {_reason(error)}",
            key=f"{key}.cert_file",
        ) from error


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
