"""A provider that reads its settings anew when its credentials are refused.

The settings it runs on are replaced only by others: a file that did not change, or cannot be read,
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from notifier.adapters.providers.settings import HttpSettings, SmtpSettings
from notifier.adapters.providers.threaded_read import ThreadedRead
from notifier.domain.breaker import is_about_credentials
from notifier.domain.errors import ConfigError
from notifier.domain.outcome import Outcome
from notifier.ports.provider import Envelope, Provider

LOOK_EVERY_S: Final = 1.0
LOOK_WITHIN_S: Final = 2.0
REPEAT_WITHIN_S: Final = 2.0
"""Of the send's begin: a worker's claims are young when their calls begin."""

Settings = SmtpSettings | HttpSettings
Open = Callable[[Settings], AbstractAsyncContextManager[Provider]]
Reload = Callable[[], Settings]

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_reloading(
    name: str, settings: Settings, *, open_one: Open, reload: Reload
) -> AsyncIterator[ReloadingProvider]:
    """A provider that calls `reload` in a thread, at most once a second, when it is refused.

    `reload` reads the settings anew; it may raise ConfigError or OSError, whose words are logged.
    Raises ConfigError for unusable settings to begin with.
    """
    first = await _opened(settings, open_one)
    read = ThreadedRead(f"settings of {name}", reload)
    provider = ReloadingProvider(name, first, open_one=open_one, read=read)
    try:
        yield provider
    finally:
        await provider.close()


@dataclass(slots=True, eq=False)
class _Edition:
    """The provider on one version of its settings, and how many sends are on it now."""

    settings: Settings
    provider: Provider
    stack: AsyncExitStack
    sends: int = 0


class ReloadingProvider:
    """See `ports.provider.Provider`. A send that was refused is repeated once on newer settings."""

    def __init__(
        self,
        name: str,
        first: _Edition,
        *,
        open_one: Open,
        read: ThreadedRead[Settings],
    ) -> None:
        self._name = name
        self._present = first
        self._past: set[_Edition] = set()
        self._open_one = open_one
        self._read_anew = read
        self._looking = asyncio.Lock()
        self._look_at = 0.0

    @property
    def name(self) -> str:
        """The name it has in the settings."""
        return self._name

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt, and one more if new settings were found: the first sent nothing."""
        clock = asyncio.get_running_loop().time
        began, used = clock(), self._present
        outcome = await self._send_on(used, envelope)
        if not is_about_credentials(outcome):
            return outcome
        await self._look(used)
        if self._present is used or clock() - began > REPEAT_WITHIN_S:
            return outcome
        return await self._send_on(self._present, envelope)

    async def close(self) -> None:
        """Close the present provider, and those that a cancelled send left behind."""
        for edition in [*self._past, self._present]:
            await edition.stack.aclose()

    async def _send_on(self, edition: _Edition, envelope: Envelope) -> Outcome:
        edition.sends += 1
        try:
            return await edition.provider.send(envelope)
        finally:
            edition.sends -= 1
            await self._close_unused()

    async def _look(self, refused: _Edition) -> None:
        """Look for newer settings than those refused, if nobody did meanwhile or just before."""
        clock = asyncio.get_running_loop().time
        async with self._looking:
            if self._present is refused and clock() >= self._look_at:
                self._look_at = clock() + LOOK_EVERY_S
                await self._renew()

    async def _renew(self) -> None:
        try:
            settings = await self._read()
            if settings == self._present.settings:
                return
            newer = await _opened(settings, self._open_one)
        except (ConfigError, OSError) as error:
            log.error("provider_reload_failed", provider=self._name, reason=_reason(error))  # noqa: TRY400 the reason is enough
            return
        self._past.add(self._present)
        self._present = newer
        log.info("provider_reloaded", provider=self._name)
        await self._close_unused()

    async def _read(self) -> Settings:
        async with asyncio.timeout(LOOK_WITHIN_S):  # a TimeoutError is an OSError
            return await self._read_anew()

    async def _close_unused(self) -> None:
        for edition in [one for one in self._past if one.sends == 0]:
            self._past.discard(edition)
            await edition.stack.aclose()


async def _opened(settings: Settings, open_one: Open) -> _Edition:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(open_one(settings))
        return _Edition(settings, provider, stack.pop_all())


def _reason(error: ConfigError | OSError) -> str:
    """One line; a ConfigError never holds a secret."""
    if isinstance(error, ConfigError):
        return "; ".join(str(error).splitlines())
    return error.strerror or type(error).__name__
