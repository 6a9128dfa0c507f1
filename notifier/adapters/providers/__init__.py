"""Ways to send. `type` in a provider's settings says which one.

`PROVIDER_TYPES` is what the settings' `convert_table` needs to read `[providers.<name>]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from notifier.adapters.providers.http import open_http
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.adapters.providers.settings import HttpSettings, SmtpSettings
from notifier.adapters.providers.smtp import open_smtp
from notifier.ports import Provider

__all__ = [
    "PROVIDER_TYPES",
    "HttpSettings",
    "ProviderSettings",
    "SmtpSettings",
    "open_http",
    "open_provider",
    "open_smtp",
    "sandbox_providers",
]

ProviderSettings = SmtpSettings | HttpSettings
PROVIDER_TYPES: Final[Mapping[str, type[ProviderSettings]]] = {
    "smtp": SmtpSettings,
    "http": HttpSettings,
}


def open_provider(name: str, settings: ProviderSettings) -> AbstractAsyncContextManager[Provider]:
    """The provider that these settings ask for. Raises ConfigError, on entering, if they cannot."""
    match settings:
        case SmtpSettings():
            return open_smtp(name, settings)
        case HttpSettings():
            return open_http(name, settings)
