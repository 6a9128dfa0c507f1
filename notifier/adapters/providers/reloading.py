"""A provider that reads its settings again when its credentials are refused.

Only different settings replace the current ones: a file that is unchanged or unreadable changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import structlog

from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.providers.threaded_read import ThreadedRead
from notifier.domain.errors import ConfigError
from notifier.domain.outcome import Misconfigured, Outcome
from notifier.ports.provider import CopiesFiles, Envelope, LimitsConnections, Provider

RELOAD_INTERVAL_S: Final = 1.0
READ_TIMEOUT_S: Final = 2.0
MAX_REPEAT_AGE_S: Final = 2.0
"""A send is repeated only within this time of its start: a claim must be young when its call
begins."""

S_contra = TypeVar("S_contra", bound=ProviderSettings, contravariant=True)

log = structlog.get_logger(__name__)


class SettingsReader(Protocol):
    """Reads the current settings of a provider; may block. Raises ConfigError or OSError."""

    def __call__(self) -> ProviderSettings: ...


class Opener(Protocol[S_contra]):
    """Opens a provider. Raises ConfigError, on entering, for settings that cannot work."""

    def __call__(
        self, name: str, settings: S_contra, /
    ) -> AbstractAsyncContextManager[Provider]: ...


@asynccontextmanager
async def open_reloading(
    name: str,
    settings: ProviderSettings,
    *,
    open_edition: Opener[ProviderSettings],
    reload: SettingsReader,
) -> AsyncIterator[ReloadingProvider]:
    """A provider that calls `reload` in a thread, at most once a second, after a refusal.

    The message of a ConfigError or OSError from `reload` is logged. Raises ConfigError if the first
    settings cannot work.
    """
    first = await _opened(name, settings, open_edition)
    read = ThreadedRead(f"settings of {name}", reload)
    provider = ReloadingProvider(name, first, open_edition=open_edition, read=read)
    try:
        yield provider
    finally:
        await provider.close()


@dataclass(slots=True, eq=False)
class _Edition:
    """The provider on one version of its settings, and how many sends use it now."""

    settings: ProviderSettings
    provider: Provider
    stack: AsyncExitStack
    sends: int = 0


class ReloadingProvider:
    """Implements ports.provider.Provider. A refused send is repeated once on newer settings."""

    def __init__(
        self,
        name: str,
        first: _Edition,
        *,
        open_edition: Opener[ProviderSettings],
        read: ThreadedRead[ProviderSettings],
    ) -> None:
        self._name = name
        self._open_edition = open_edition
        self._current = first
        self._replaced: set[_Edition] = set()
        self._read = read
        self._reload_lock = asyncio.Lock()
        self._next_reload_at = 0.0

    @property
    def name(self) -> str:
        """Implements ports.provider.Provider."""
        return self._name

    @property
    def connection_limit(self) -> int:
        """Implements ports.provider.LimitsConnections, for the current settings."""
        current = self._current
        if isinstance(current.provider, LimitsConnections):
            return current.provider.connection_limit
        return current.settings.max_connections

    @property
    def file_copies(self) -> int:
        """Implements ports.provider.CopiesFiles."""
        provider = self._current.provider
        return provider.file_copies if isinstance(provider, CopiesFiles) else 0

    async def send(self, envelope: Envelope) -> Outcome:
        """Send, and send once more if newer settings were found: the first call sent nothing."""
        clock = asyncio.get_running_loop().time
        started_at, used = clock(), self._current
        outcome = await self._send_on(used, envelope)
        if not isinstance(outcome, Misconfigured):
            return outcome
        await self._reload_after(used)
        if self._current is used or clock() - started_at > MAX_REPEAT_AGE_S:
            return outcome
        return await self._send_on(self._current, envelope)

    async def close(self) -> None:
        """Close the current edition and older ones that a cancelled send left open."""
        for edition in [*self._replaced, self._current]:
            await edition.stack.aclose()

    async def _send_on(self, edition: _Edition, envelope: Envelope) -> Outcome:
        edition.sends += 1
        try:
            return await edition.provider.send(envelope)
        finally:
            edition.sends -= 1
            if self._replaced:
                await self._close_unused()

    async def _reload_after(self, refused: _Edition) -> None:
        """Reload, unless another send has done so or tried it within the last second."""
        clock = asyncio.get_running_loop().time
        async with self._reload_lock:
            if self._current is refused and clock() >= self._next_reload_at:
                self._next_reload_at = clock() + RELOAD_INTERVAL_S
                await self._reload()

    async def _reload(self) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):  # a TimeoutError is an OSError
                settings = await self._read()
            if settings == self._current.settings:
                return
            newer = await _opened(self._name, settings, self._open_edition)
        except (ConfigError, OSError) as error:
            log.error("provider_reload_failed", provider=self.name, reason=_reason(error))  # noqa: TRY400 the reason is enough
            return
        self._replaced.add(self._current)
        self._current = newer
        log.info("provider_reloaded", provider=self.name)
        await self._close_unused()

    async def _close_unused(self) -> None:
        for edition in [edition for edition in self._replaced if edition.sends == 0]:
            self._replaced.discard(edition)
            await edition.stack.aclose()


async def _opened(
    name: str, settings: ProviderSettings, open_edition: Opener[ProviderSettings]
) -> _Edition:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(open_edition(name, settings))
        return _Edition(settings, provider, stack.pop_all())


def _reason(error: ConfigError | OSError) -> str:
    """The error in one line. A ConfigError never holds a secret."""
    if isinstance(error, ConfigError):
        return "; ".join(str(error).splitlines())
    return error.strerror or type(error).__name__
