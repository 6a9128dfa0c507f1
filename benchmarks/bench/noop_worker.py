"""`python -m benchmarks.bench.noop_worker ...`: a `notifier worker` whose providers count sends.

With BENCH_REAL=1 the configured providers are used and write one byte per accepted send; otherwise
each provider is replaced by the job that the peers run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from unittest.mock import patch

from benchmarks.peers.job import done, perform_async
from notifier.adapters.providers.registry import open_provider
from notifier.adapters.providers.settings import ProviderSettings
from notifier.cli.entry import run
from notifier.domain.outcome import Accepted, Outcome
from notifier.ports.provider import Envelope, Provider

Reload = Callable[[], ProviderSettings] | None


@dataclass(frozen=True, slots=True)
class Job:
    """A provider that runs the peers' job."""

    name: str

    async def send(self, envelope: Envelope) -> Outcome:
        channel, priority = envelope.queue.channel, envelope.queue.priority
        await perform_async(
            {"channel": channel, "priority": priority.value, "content": envelope.content}
        )
        return Accepted()


@dataclass(frozen=True, slots=True)
class Counted:
    """A real provider that counts its accepted sends."""

    name: str
    provider: Provider

    async def send(self, envelope: Envelope) -> Outcome:
        outcome = await self.provider.send(envelope)
        if isinstance(outcome, Accepted):
            done()
        return outcome


@asynccontextmanager
async def _open_job(
    name: str, _settings: ProviderSettings, _reload: Reload = None
) -> AsyncIterator[Provider]:
    yield Job(name)


@asynccontextmanager
async def _open_counted(
    name: str, settings: ProviderSettings, reload: Reload = None
) -> AsyncIterator[Provider]:
    async with open_provider(name, settings, reload) as provider:
        yield Counted(name, provider)


def _opener() -> Callable[..., AbstractAsyncContextManager[Provider]]:
    return _open_counted if os.environ.get("BENCH_REAL") else _open_job


if __name__ == "__main__":
    with patch("notifier.app.providers.open_provider", _opener()):
        sys.exit(run(["worker", *sys.argv[1:]]))
