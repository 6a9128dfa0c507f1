"""The provider types: how each is configured, opened and checked. A new type is a row here.

The value of `type` in `[providers.<name>]` is the tag of the settings struct.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from notifier.adapters.providers.fcm.provider import check_fcm, open_fcm
from notifier.adapters.providers.fcm.settings import NO_PROJECT, FcmSettings
from notifier.adapters.providers.http.checkup import address_of, check_http
from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.request import Templates
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.inbox import InboxSettings, check_inbox, no_receipts, open_inbox
from notifier.adapters.providers.reloading import Opener, SettingsReader, open_reloading
from notifier.adapters.providers.sandbox_in_worker import (
    SandboxInWorkerSettings,
    check_sandbox_in_worker,
    open_sandbox_in_worker,
)
from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.providers.signed_receipts import signed_receipts
from notifier.adapters.providers.smtp.checkup import check_smtp
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.errors import ConfigError
from notifier.domain.finding import Finding
from notifier.ports.provider import Provider
from notifier.ports.receipts import ReceiptVerifier

S = TypeVar("S", bound=ProviderSettings)
S_contra = TypeVar("S_contra", bound=ProviderSettings, contravariant=True)


class Check(Protocol[S_contra]):
    """Checks whether a provider can be reached, without sending."""

    async def __call__(self, name: str, settings: S_contra, /) -> Finding: ...


class Receipts(Protocol[S_contra]):
    """Makes the verifier of a provider's receipts, None if it sends none. Raises ConfigError."""

    def __call__(self, name: str, settings: S_contra, /) -> ReceiptVerifier | None: ...


@dataclass(frozen=True, slots=True)
class ProviderType(Generic[S]):
    """One provider type."""

    settings: type[S]
    open: Opener[S]
    check: Check[S]
    receipts: Receipts[S]


def _tag(settings: ProviderSettings | type[ProviderSettings]) -> str:
    return str(settings.__struct_config__.tag)


# Each row has its own annotation: with it mypy checks that both functions accept these settings.
_SMTP: Final[ProviderType[SmtpSettings]] = ProviderType(
    SmtpSettings, open_smtp, check_smtp, signed_receipts
)
_HTTP: Final[ProviderType[HttpSettings]] = ProviderType(
    HttpSettings, open_http, check_http, signed_receipts
)
_FCM: Final[ProviderType[FcmSettings]] = ProviderType(
    FcmSettings, open_fcm, check_fcm, signed_receipts
)
_SANDBOX: Final[ProviderType[SandboxInWorkerSettings]] = ProviderType(
    SandboxInWorkerSettings, open_sandbox_in_worker, check_sandbox_in_worker, signed_receipts
)
_INBOX: Final[ProviderType[InboxSettings]] = ProviderType(
    InboxSettings, open_inbox, check_inbox, no_receipts
)

_ROWS: Final[tuple[ProviderType[Any], ...]] = (_SMTP, _HTTP, _FCM, _SANDBOX, _INBOX)
_BY_TAG: Final[Mapping[str, ProviderType[Any]]] = {_tag(row.settings): row for row in _ROWS}
PROVIDER_TYPES: Final[Mapping[str, type[ProviderSettings]]] = {
    tag: row.settings for tag, row in _BY_TAG.items()
}
"""The settings class for each value of `type` in `[providers.<name>]`."""


def open_provider(
    name: str, settings: ProviderSettings, reload: SettingsReader | None = None
) -> AbstractAsyncContextManager[Provider]:
    """Open a provider. Raises ConfigError, on entering, for settings that cannot work.

    With `reload`, which reads the settings again, the provider recovers from refused credentials.
    """
    if reload is None:
        return _open(name, settings)
    return open_reloading(name, settings, open_edition=_open, reload=reload)


async def check_provider(name: str, settings: ProviderSettings) -> Finding:
    """Check whether the provider can be reached; for mail also whether the login is accepted.

    Sends nothing. Raises ConfigError for settings that cannot work.
    """
    return await _type_of(settings).check(name, settings)


def receipt_verifier(name: str, settings: ProviderSettings) -> ReceiptVerifier | None:
    """Return what verifies a provider's receipts, None if it sends none. Raises ConfigError."""
    return _type_of(settings).receipts(name, settings)


def provider_host(settings: ProviderSettings) -> str:
    """Return the host and port that a provider calls, without secrets."""
    match settings:
        case SmtpSettings():
            return f"{settings.host}:{settings.port}"
        case HttpSettings() | FcmSettings() if address := address_of(settings.url):
            return f"{address.host}:{address.port}"
        case SandboxInWorkerSettings():
            return "the worker itself, which delivers nothing"
        case InboxSettings():
            return "the inboxes in Postgres"
        case _:
            return "a host of each notification"


async def check_settings(name: str, settings: ProviderSettings) -> None:
    """Check what the type of a setting cannot say: templates, tables, files. Connects to nothing.

    Raises ConfigError for settings that cannot work.
    """
    receipt_verifier(name, settings)
    async with _open(name, settings):
        pass


def check_recipient(name: str, settings: ProviderSettings, recipient: str) -> None:
    """Check that requests to a recipient can be rendered, as far as that is known without content.

    Raises ConfigError.
    """
    match settings:
        case HttpSettings():
            with _key_in_text():
                Templates(name, settings).check_json(recipient)
        case FcmSettings():
            with _key_in_text():
                Templates(name, settings.requests(NO_PROJECT)).check_json(recipient)
        case _:
            pass


@asynccontextmanager
async def _open(name: str, settings: ProviderSettings) -> AsyncIterator[Provider]:
    """Open a provider. The text of a ConfigError names the key."""
    async with AsyncExitStack() as stack:
        with _key_in_text():
            provider = await stack.enter_async_context(_type_of(settings).open(name, settings))
        yield provider


@contextmanager
def _key_in_text() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        if error.key is None or error.key in str(error):
            raise
        raise ConfigError(f"{error.key}: {error}", key=error.key) from error


def _type_of(settings: ProviderSettings) -> ProviderType[Any]:
    return _BY_TAG[_tag(settings)]
