"""A provider that sends push messages through FCM, signed in as a service account."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from notifier.adapters.providers.fcm.settings import NO_PROJECT, PATH, SCOPE, FcmSettings
from notifier.adapters.providers.http.access_tokens import AccessTokens, ServiceAccount
from notifier.adapters.providers.http.checkup import address_of, check_http
from notifier.adapters.providers.http.provider import HttpProvider, open_http
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.http.signing import NotSigned
from notifier.adapters.providers.http.transport import open_client
from notifier.adapters.providers.reachability import misconfigured, reachable
from notifier.domain.errors import ConfigError
from notifier.domain.finding import CheckStatus, Finding

_PROJECT: Final = re.compile(r"[a-z0-9.:-]{1,100}")
_PLAIN_HTTP: Final = "http://"
"""Only a server of one's own is called without TLS, such as the sandbox."""


@asynccontextmanager
async def open_fcm(name: str, settings: FcmSettings) -> AsyncIterator[HttpProvider]:
    """The provider; it signs in at the first send. Raises ConfigError for unusable settings."""
    account = _account_of(name, settings)
    requests = _requests_of(name, settings, account)
    async with AsyncExitStack() as stack:
        tokens = None
        if account is not None:
            tokens = await stack.enter_async_context(_open_tokens(name, settings, account))
        yield await stack.enter_async_context(open_http(name, requests, tokens))


async def check_fcm(name: str, settings: FcmSettings) -> Finding:
    """Connect, and sign in. Raises ConfigError for settings that cannot work."""
    account = _account_of(name, settings)
    found = await check_http(name, _requests_of(name, settings, account))
    if account is None or found.status is not CheckStatus.OK:
        return found
    async with _open_tokens(name, settings, account) as tokens:
        try:
            await tokens.get()
        except NotSigned as error:
            at = address_of(account.token_url)
            result = f"{account.email}: {at} grants no access token: {error.outcome.code}"
            fix = f"correct service_account in [providers.{name}], or allow connections to {at}"
            return misconfigured(name, result, fix)
    return reachable(name, f"signed in as {account.email}; no message sent")


def _account_of(name: str, settings: FcmSettings) -> ServiceAccount | None:
    """The account of the settings; None for a server of one's own that needs none.

    Raises ConfigError.
    """
    key = f"providers.{name}.service_account"
    is_plain = settings.url.lower().startswith(_PLAIN_HTTP)
    if not settings.service_account:
        if is_plain:
            return None
        raise ConfigError("expected the JSON key of a service account, or its file", key=key)
    account = ServiceAccount.parse(settings.service_account, key)
    if account.token_url.lower().startswith(_PLAIN_HTTP) and not is_plain:
        raise ConfigError("expected a token_uri that begins with https://", key=key)
    return account


def _requests_of(name: str, settings: FcmSettings, account: ServiceAccount | None) -> HttpSettings:
    """The settings of the requests. Raises ConfigError for an invalid project id."""
    if settings.project and PATH in settings.url:
        raise ConfigError("has no effect: url names a project", key=f"providers.{name}.project")
    project = settings.project or (account.project if account else NO_PROJECT)
    if not _PROJECT.fullmatch(project) and PATH not in settings.url:
        raise ConfigError("expected the id of a Firebase project", key=f"providers.{name}.project")
    return settings.requests(project)


@asynccontextmanager
async def _open_tokens(
    name: str, settings: FcmSettings, account: ServiceAccount
) -> AsyncIterator[AccessTokens]:
    async with open_client(name, settings.sign_in(account.token_url)) as client:
        yield AccessTokens(name, account, SCOPE, client)
