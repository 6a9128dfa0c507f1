"""The channel `webhook` and its provider, which no table of the settings names, and its loops."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

import msgspec
from uuid_utils.compat import uuid7

from notifier.adapters.postgres.events import open_events
from notifier.adapters.postgres.webhooks import open_webhook_calls
from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.providers.webhook.settings import WebhookSettings
from notifier.adapters.providers.webhook.transport import open_transport
from notifier.api.events.encoding import JsonEvents
from notifier.app.process import Process, connection_settings, event_writing
from notifier.delivery.delivery_rules import ProviderBinding
from notifier.delivery.webhook_fanout import FANOUT_INTERVAL_S, WebhookFanout
from notifier.delivery.webhook_sender import NOTE_INTERVAL_S, WebhookSender
from notifier.domain.notification import WEBHOOK_CHANNEL, WorkerId
from notifier.domain.retry import AmbiguityRule, ListedDelays
from notifier.domain.webhook_calls import CallLimits
from notifier.lifecycle import repeat
from notifier.settings import Settings
from notifier.settings.tree import ChannelSettings

SHARE: Final = 4
"""The channel has at most one in so many of a worker's consumers."""
MIN_TTL: Final = timedelta(days=1)
LOCAL_NETWORKS: Final = ("127.0.0.0/8", "::1/128")
_ANY_NUMBER: Final = 1000


def with_webhooks(settings: Settings) -> Settings:
    """The settings with the channel of webhooks, unless there are no events."""
    if not settings.events.enabled:
        return settings
    channel = ChannelSettings(
        address="token",
        provider=WEBHOOK_CHANNEL,
        ambiguous_tries=_ANY_NUMBER,  # a receiver knows a repeated event by its id
        stop_unanswered_s=0.0,
        max_consumers=_most_calls(settings),
    )
    return msgspec.structs.replace(
        settings, channels={**settings.channels, WEBHOOK_CHANNEL: channel}
    )


def for_dev(settings: Settings) -> Settings:
    """The settings with which webhooks of this machine may be called."""
    webhooks = msgspec.structs.replace(
        settings.webhooks,
        allow_http=True,
        allow_private=(*settings.webhooks.allow_private, *LOCAL_NETWORKS),
    )
    return msgspec.structs.replace(settings, webhooks=webhooks)


def webhook_settings(settings: Settings) -> WebhookSettings:
    """The settings of the provider of the channel."""
    webhooks = settings.webhooks
    return WebhookSettings(
        timeout_s=webhooks.timeout_s,
        max_connections=_most_calls(settings),
        refusals_in_a_row=0,
        retry_s=webhooks.retry_s,
        disable_after_s=webhooks.disable_after_s,
        allow_http=webhooks.allow_http,
        allow_private=webhooks.allow_private,
        per_endpoint=webhooks.per_endpoint,
    )


def call_ttl(settings: Settings) -> timedelta:
    """For how long a call is tried: as long as all its retries take, and as long again.

    The second half is for calls that wait because others of the same webhook fail.
    """
    most = timedelta(days=settings.retention.days - 1)
    return min(most, max(MIN_TTL, 2 * ListedDelays(settings.webhooks.retry_s).longest))


def with_webhook_provider(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Mapping[str, ProviderSettings]:
    """The settings of all providers, with that of webhooks if the settings have their channel."""
    if WEBHOOK_CHANNEL not in settings.channels:
        return providers
    return {**providers, WEBHOOK_CHANNEL: webhook_settings(settings)}


class WebhookCalling:
    """What a worker runs so that webhooks are called; nothing without their channel."""

    def __init__(
        self, sender: WebhookSender, fanout: WebhookFanout, settings: WebhookSettings
    ) -> None:
        self._sender = sender
        self._fanout = fanout
        self._settings = settings

    @property
    def binding(self) -> ProviderBinding:
        """The binding of the channel."""
        return ProviderBinding(
            provider=self._sender,
            ambiguity=AmbiguityRule(tries=_ANY_NUMBER),
            longest_send_s=self._settings.longest_send_s,
            retries=self._settings.retries,
        )

    def start(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        """Turn events into calls until `stop`."""
        group.create_task(self._run_fanout(stop), name="webhook fan-out")
        group.create_task(repeat(self._sender, stop, NOTE_INTERVAL_S), name="webhook results")

    async def finish(self) -> None:
        """Note what the last calls resulted in."""
        await self._sender.run_once()

    async def _run_fanout(self, stop: asyncio.Event) -> None:
        await repeat(self._fanout, stop, FANOUT_INTERVAL_S)
        await self._fanout.release()


async def open_webhook_calling(stack: AsyncExitStack, process: Process) -> WebhookCalling | None:
    """Open what calls webhooks; the stack closes it. None if the settings have no such channel."""
    settings = process.settings
    if WEBHOOK_CHANNEL not in settings.channels:
        return None
    own = webhook_settings(settings)
    connections = await stack.enter_async_context(
        open_webhook_calls(
            connection_settings(settings),
            WorkerId(uuid7()),
            events=event_writing(settings),
        )
    )
    reader = await stack.enter_async_context(open_events(connection_settings(settings)))
    transport = await stack.enter_async_context(open_transport(WEBHOOK_CHANNEL, own))
    sender = WebhookSender(
        WEBHOOK_CHANNEL,
        store=connections.calls,
        transport=transport,
        limits=CallLimits(per_endpoint=own.per_endpoint, most=own.max_connections),
        observer=process.metrics,
        clock=time.monotonic,
        wall_clock=time.time,
        random=random.Random(),  # noqa: S311 jitter, no secret
        disable_after_s=own.disable_after_s,
    )
    fanout = WebhookFanout(
        store=connections.fanout,
        reader=reader,
        encoder=JsonEvents(),
        observer=process.metrics,
        clock=time.monotonic,
        ttl=call_ttl(settings),
    )
    return WebhookCalling(sender, fanout, own)


def _most_calls(settings: Settings) -> int:
    return max(1, settings.worker.consumers // SHARE)
