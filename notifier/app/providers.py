"""Opens the providers that the channels use, with their rates."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from notifier.adapters.postgres.inbox import open_inbox_writer
from notifier.adapters.postgres.rates import open_rates
from notifier.adapters.providers.inbox import InboxProvider, InboxSettings, SandboxWithInbox
from notifier.adapters.providers.registry import PROVIDER_TYPES, check_recipient, open_provider
from notifier.adapters.providers.sandbox_in_worker import SandboxInWorkerSettings
from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.providers.webhook.settings import WebhookSettings
from notifier.app.process import Process, connection_settings
from notifier.delivery.delivery_rules import ProviderBinding
from notifier.domain.breaker import NEVER, BreakerRule
from notifier.domain.errors import ConfigError
from notifier.domain.notification import WEBHOOK_CHANNEL, Channel
from notifier.domain.retry import AmbiguityRule, OnAmbiguous
from notifier.lifecycle import background_task
from notifier.ports.provider import LimitsConnections, Provider
from notifier.scheduling.rates.bulkheads import Bulkheads, ProviderConnections
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.provider_rates import ProviderRates
from notifier.settings import Settings, convert_table
from notifier.settings.tree import ChannelSettings

SAMPLE_RECIPIENTS: Final[Mapping[str, str]] = {
    "email": "ada@example.com",
    "phone": "+15005550006",
    "user": "1",
    "token": "1",  # some tokens are numbers, and so JSON without quotes
}
"""A recipient of each kind of address that a request is rendered for."""
UNANSWERED_SHARE: Final = 2 / 3
"""Of a provider's timeout_s: an unanswered provider's breaker opens no later, so before its calls
time out and are sent again."""
MIN_UNANSWERED_S: Final = 2.0
"""But not earlier than this: a provider with a shorter `timeout_s` may just be slow."""

KNOWN_AFTER_S: Final = 3.0
"""After its limit an unanswered provider's breaker opens within this time: the last answers that
other workers had are known from their heartbeats."""

ReadSettings = Callable[[], Settings]
"""Reads the settings again, as at the start of the process."""


@dataclass(frozen=True, slots=True)
class ProviderReload:
    """Reads one provider's settings again, after the provider refused our credentials."""

    name: str
    read_settings: ReadSettings

    def __call__(self) -> ProviderSettings:
        """The current settings. Raises ConfigError if no channel uses the provider any longer."""
        providers = provider_settings(self.read_settings())
        if self.name not in providers:
            raise ConfigError("no channel uses this provider", key=f"providers.{self.name}")
        return providers[self.name]


def provider_settings(settings: Settings) -> Mapping[str, ProviderSettings]:
    """The settings of the providers that channels use, by name. Raises ConfigError."""
    used = {channel.provider for channel in settings.channels.values()} - {WEBHOOK_CHANNEL}
    return {name: provider_of(settings, name) for name in sorted(used)}


def provider_of(settings: Settings, name: str) -> ProviderSettings:
    """The settings of one provider, checked against its channels and the worker's limits.

    Raises ConfigError.
    """
    raw = settings.providers[name]
    provider = convert_table(raw, PROVIDER_TYPES, key=f"providers.{name}")
    limit_s = settings.worker.send_timeout_s
    is_limited = provider.longest_send_s is None and provider.timeout_s >= limit_s
    if is_limited and "timeout_s" in raw:
        raise ConfigError(
            f"providers.{name}.timeout_s: got {provider.timeout_s:g}, expected less than "
            f"worker.send_timeout_s ({limit_s:g}), which cuts a call off as ambiguous",
            key=f"providers.{name}.timeout_s",
        )
    channels = [channel for channel in settings.channels.values() if channel.provider == name]
    for address in sorted({channel.address for channel in channels}):
        check_recipient(name, provider, SAMPLE_RECIPIENTS[address])
    return provider


async def open_bindings(
    stack: AsyncExitStack,
    settings: Settings,
    providers: Mapping[str, ProviderSettings],
    reload: ReadSettings | None,
) -> Mapping[Channel, ProviderBinding]:
    """Open every provider and bind it to its channels; the stack closes them.

    That of webhooks is bound in app/webhooks.py.
    """
    opened: dict[str, Provider] = {}
    inbox = await _open_inbox(stack, settings, providers)
    if inbox is not None:
        opened[inbox.name] = inbox
    for name, one_provider in providers.items():
        if name in opened or isinstance(one_provider, WebhookSettings):
            continue
        provider_reload = ProviderReload(name, reload) if reload else None
        opened[name] = await stack.enter_async_context(
            open_provider(name, one_provider, provider_reload)
        )
        if inbox is not None and isinstance(one_provider, SandboxInWorkerSettings):
            opened[name] = SandboxWithInbox(opened[name], inbox)
    return {
        Channel(name): ProviderBinding(
            provider=opened[channel.provider],
            ambiguity=AmbiguityRule(
                on_ambiguous=OnAmbiguous(channel.ambiguous),
                tries=channel.ambiguous_tries,
                after_timeout=_after_timeout(channel, providers[channel.provider]),
            ),
            longest_send_s=providers[channel.provider].longest_send_s or 0.0,
        )
        for name, channel in settings.channels.items()
        if channel.provider in opened
    }


async def _open_inbox(
    stack: AsyncExitStack, settings: Settings, providers: Mapping[str, ProviderSettings]
) -> InboxProvider | None:
    """Open the provider of inboxes, of which the settings have at most one."""
    for name, one_provider in providers.items():
        if isinstance(one_provider, InboxSettings):
            writer = await stack.enter_async_context(
                open_inbox_writer(connection_settings(settings), one_provider.keep_s)
            )
            return InboxProvider(name, writer, one_provider.timeout_s)
    return None


async def open_provider_rates(
    stack: AsyncExitStack, process: Process, providers: Mapping[str, ProviderSettings]
) -> ProviderRates:
    """Open the rates of the providers that have one; the stack closes them."""
    settings = process.settings
    channels = {Channel(name): channel.provider for name, channel in settings.channels.items()}
    limits = {name: each.rate for name, each in providers.items() if each.rate is not None}
    if not limits:
        return ProviderRates(channels, {})
    store = await stack.enter_async_context(open_rates(connection_settings(settings)))
    rates = {
        name: ProviderRate(
            name,
            rate_per_s,
            store=store,
            observer=process.metrics,
            clock=time.monotonic,
            random=random.Random(),  # noqa: S311 jitter, no secret
        )
        for name, rate_per_s in limits.items()
    }
    for name, rate in rates.items():
        await stack.enter_async_context(background_task(rate, f"rate {name}"))
    return ProviderRates(channels, rates)


def breaker_rules(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Mapping[str, BreakerRule]:
    """When the breaker of each provider opens, as far as the settings say it."""
    return {
        name: NEVER
        if isinstance(one_provider, SandboxInWorkerSettings | WebhookSettings)
        else BreakerRule(
            refusals_in_a_row=one_provider.refusals_in_a_row,
            stop_unanswered_s={
                channel: _unanswered_limit_s(channel_settings, one_provider)
                for channel, channel_settings in settings.channels.items()
                if channel_settings.provider == name
            },
        )
        for name, one_provider in providers.items()
    }


def _unanswered_limit_s(channel: ChannelSettings, provider: ProviderSettings) -> float:
    """After how long without an answer the breaker opens; 0: never."""
    most_s = max(UNANSWERED_SHARE * provider.timeout_s, MIN_UNANSWERED_S)
    return min(channel.stop_unanswered_s, most_s)


def _after_timeout(channel: ChannelSettings, provider: ProviderSettings) -> timedelta:
    """How long a notification waits whose call has timed out.

    The calls of a moment time out together. Sent again before the breaker opens, all would time out
    once more, and fail as ambiguous.
    """
    limit_s = _unanswered_limit_s(channel, provider)
    wait_s = limit_s + KNOWN_AFTER_S - provider.timeout_s if limit_s else 0.0
    return timedelta(seconds=max(0.0, wait_s))


def connection_bulkheads(
    process: Process,
    providers: Mapping[str, ProviderSettings],
    bindings: Mapping[Channel, ProviderBinding],
) -> Bulkheads:
    """The bulkheads of the channels by what the opened providers find about their servers."""
    opened = {binding.provider.name: binding.provider for binding in bindings.values()}
    return Bulkheads(
        {channel: binding.provider.name for channel, binding in bindings.items()},
        {
            name: ProviderConnections(
                providers[name].max_connections,
                provider if isinstance(provider, LimitsConnections) else None,
            )
            for name, provider in opened.items()
        },
        process.metrics,
    )


def bulkheads_of(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Mapping[Channel, int]:
    """How many calls each channel may make at once: its share of the provider's connections."""
    channels = Counter(channel.provider for channel in settings.channels.values())
    return {
        Channel(name): max(
            1, providers[channel.provider].max_connections // channels[channel.provider]
        )
        for name, channel in settings.channels.items()
    }
