"""Ways to send. `type` in a provider's settings says which one.

`PROVIDER_TYPES` is what the settings' `convert_table` needs to read `[providers.<name>]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from notifier.adapters.providers.http import open_http
from notifier.adapters.providers.reloading import open_reloading
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.adapters.providers.settings import HttpSettings, SmtpSettings
from notifier.adapters.providers.smtp import open_smtp
from notifier.ports.provider import Provider

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


def open_provider(
    name: str, settings: ProviderSettings, reload: Callable[[], ProviderSettings] | None = None
) -> AbstractAsyncContextManager[Provider]:
    """The provider that these settings ask for. Raises ConfigError, on entering, if they cannot.

    With `reload`, which reads the settings anew, refused credentials are looked for again.
    """

    def open_one(settings: ProviderSettings) -> AbstractAsyncContextManager[Provider]:
        return _open(name, settings)

    if reload is None:
        return open_one(settings)
    return open_reloading(name, settings, open_one=open_one, reload=reload)


def _open(name: str, settings: ProviderSettings) -> AbstractAsyncContextManager[Provider]:
    match settings:
        case SmtpSettings():
            return open_smtp(name, settings)
        case HttpSettings():
            return open_http(name, settings)
