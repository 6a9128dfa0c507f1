"""The sending side of a process: providers, attempts, crew, and the end of their work in order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from notifier.adapters.postgres.rates import open_rates
from notifier.adapters.providers.registry import PROVIDER_TYPES, open_provider
from notifier.adapters.providers.settings import ProviderSettings
from notifier.app.process import Process, connection_settings
from notifier.delivery.attempt import Attempts
from notifier.delivery.delivery_rules import DeliveryRules, ProviderBinding
from notifier.domain.allocation.demand import RESERVED_CONSUMERS
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.lifecycle import background_task, repeat
from notifier.recovery import rescuer, unpublished
from notifier.recovery.orphans import OrphanRecovery
from notifier.recovery.rescuer import Rescuer
from notifier.recovery.unpublished import UnpublishedRecovery
from notifier.scheduling.consumers.deployment import Deployment
from notifier.scheduling.consumers.lane import QueueRule
from notifier.scheduling.consumers.pool import (
    ConsumerPool,
    PoolPorts,
    PoolSettings,
    open_consumer_pool,
)
from notifier.scheduling.gates.breakers import Breakers
from notifier.scheduling.gates.prober import Prober
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.provider_rates import ProviderRates
from notifier.settings import Settings, convert_table

ORPHANS_EVERY_S: Final = 5.0
LAST_RELEASE_WITHIN_S: Final = 2.0
PROGRESS_EVERY_S: Final = 1.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_worker(
    process: Process,
    providers: Mapping[str, ProviderSettings],
    *,
    stop: asyncio.Event,
    reload: Callable[[str], ProviderSettings] | None = None,
) -> AsyncIterator[ConsumerPool]:
    """Send until the block is left, which drains: see `_drain`.

    `reload` reads a provider's settings anew: a refused credential may have been changed.
    """
    settings = process.settings
    async with AsyncExitStack() as stack:
        rules = DeliveryRules(
            bindings=await _open_bindings(stack, settings, providers, reload),
            policies=retry_policies(settings),
        )
        breakers = process.sending.breakers = _breakers(process)
        rates = await _open_rates(stack, process, providers)
        attempts = Attempts(
            store=process.store,
            observer=process.metrics,
            rules=rules,
            liveness=process.membership,
            rate_limiter=rates,
            outcome_listeners=(breakers, rates),
            draw=random.random,
            send_timeout_s=settings.worker.send_timeout_s,
        )
        bulkheads = _bulkheads(settings, providers)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(attempts.run(), name="batches")
        async with open_consumer_pool(
            PoolSettings(
                rules=queue_rules(process, bulkheads), consumers=settings.worker.consumers
            ),
            PoolPorts(
                broker=process.broker,
                store=process.store,
                attempts=attempts,
                observer=process.metrics,
            ),
            Deployment(
                cluster=process.membership,
                gates=process.gates,
                rates=rates.by_queue(process.queues),
            ),
            clock=time.monotonic,
            random=random.Random(),  # noqa: S311 jitter, no secret
        ) as pool:
            process.sending.pool = pool
            _look_after(group, process, attempts, breakers, rules, stop)
            yield pool
            stop.set()
            await _drain(pool, settings.worker.grace_s)
        await _release_the_last(attempts)
        attempts.close()


async def _open_rates(
    stack: AsyncExitStack, process: Process, providers: Mapping[str, ProviderSettings]
) -> ProviderRates:
    """The providers that have a rate, each served until the stack is closed."""
    limited = {name: of.rate for name, of in providers.items() if of.rate is not None}
    channels = {
        Channel(name): channel.provider for name, channel in process.settings.channels.items()
    }
    if not limited:
        return ProviderRates(channels, {})
    store = await stack.enter_async_context(open_rates(connection_settings(process.settings)))
    rates = {
        name: ProviderRate(
            name,
            rate_per_s,
            store=store,
            observer=process.metrics,
            clock=time.monotonic,
            random=random.Random(),  # noqa: S311 jitter, no secret
        )
        for name, rate_per_s in limited.items()
    }
    for name, rate in rates.items():
        await stack.enter_async_context(background_task(rate.run, f"rate {name}"))
    return ProviderRates(channels, rates)


def _bulkheads(
    settings: Settings, providers: Mapping[str, ProviderSettings]
) -> Mapping[Channel, int]:
    """How many calls at once each channel may make here: its part of its provider's connections."""
    channels = Counter(channel.provider for channel in settings.channels.values())
    return {
        Channel(name): max(
            1, providers[channel.provider].max_connections // channels[channel.provider]
        )
        for name, channel in settings.channels.items()
    }


def _breakers(process: Process) -> Breakers:
    prober = Prober(
        store=process.control_store,
        gates=process.gates,
        probes=process.gates.probes,
        backlog=process.sending,
        observer=process.metrics,
        clock=time.monotonic,
        longest_call_s=process.settings.worker.send_timeout_s,
    )
    return Breakers(
        store=process.control_store,
        gates=process.gates,
        prober=prober,
        reports=process.membership,
        observer=process.metrics,
        clock=time.monotonic,
    )


def _look_after(
    group: asyncio.TaskGroup,
    process: Process,
    attempts: Attempts,
    breakers: Breakers,
    rules: DeliveryRules,
    stop: asyncio.Event,
) -> None:
    rescue = Rescuer(
        store=process.store,
        observer=process.metrics,
        own=process.sending,
        peers=process.membership,
        gates=process.gates,
    )
    dead = OrphanRecovery(
        store=process.store,
        observer=process.metrics,
        processes=process.membership,
        liveness=process.membership,
        rules=rules,
    )
    relays = UnpublishedRecovery(
        store=process.store,
        observer=process.metrics,
        queues=process.queues,
        processes=process.membership,
    )
    group.create_task(breakers.run(stop), name="breakers")
    group.create_task(repeat(rescue.run_once, stop, rescuer.CHECK_INTERVAL_S), name="rescuer")
    group.create_task(repeat(dead.run_once, stop, rescuer.CHECK_INTERVAL_S), name="dead workers")
    group.create_task(
        repeat(relays.run_once, stop, unpublished.CHECK_INTERVAL_S), name="dead relays"
    )
    group.create_task(_release_orphans(attempts, stop), name="orphans")


async def _release_orphans(attempts: Attempts, stop: asyncio.Event) -> None:
    async def release() -> None:
        try:
            async with asyncio.timeout(ORPHANS_EVERY_S):
                await attempts.release_orphans()
        except (StoreUnavailable, TimeoutError) as error:
            log.debug("orphan_release_failed", reason=str(error))

    await repeat(release, stop, ORPHANS_EVERY_S)


async def _drain(pool: ConsumerPool, grace_s: float) -> None:
    """Take nothing new, give back what is buffered, let what is in flight finish, within grace.

    What is left then is cancelled as the crew's block ends: each attempt records Ambiguous.
    """
    deadline = time.monotonic() + grace_s
    log.info("drain_started", in_flight=pool.busy, grace_s=grace_s)
    try:
        async with asyncio.timeout(grace_s):
            await pool.stop_taking()
    except TimeoutError:
        log.warning("buffer_release_timed_out")
    while (left_s := deadline - time.monotonic()) > 0:
        left = await pool.finish(min(PROGRESS_EVERY_S, left_s))
        if not left:
            log.info("drain_finished")
            return
        log.info("drain_continued", in_flight=left, left_s=round(deadline - time.monotonic(), 1))
    log.warning("drain_timed_out", in_flight=pool.busy)


async def _release_the_last(attempts: Attempts) -> None:
    try:
        async with asyncio.timeout(LAST_RELEASE_WITHIN_S):
            await attempts.release_remaining()
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("orphans_not_released", reason=str(error) or type(error).__name__)


async def _open_bindings(
    stack: AsyncExitStack,
    settings: Settings,
    providers: Mapping[str, ProviderSettings],
    reload: Callable[[str], ProviderSettings] | None,
) -> Mapping[Channel, ProviderBinding]:
    opened = {
        name: await stack.enter_async_context(
            open_provider(name, of, partial(reload, name) if reload else None)
        )
        for name, of in providers.items()
    }
    return {
        Channel(name): ProviderBinding(
            provider=opened[channel.provider], on_ambiguous=OnAmbiguous(channel.ambiguous)
        )
        for name, channel in settings.channels.items()
    }


def provider_settings(settings: Settings) -> Mapping[str, ProviderSettings]:
    """The providers that channels use, read from their tables. Raises ConfigError."""
    used = {channel.provider for channel in settings.channels.values()}
    return {
        name: convert_table(settings.providers[name], PROVIDER_TYPES, key=f"providers.{name}")
        for name in sorted(used)
    }


def retry_policies(settings: Settings) -> Mapping[Priority, RetryPolicy]:
    """How the tries of each priority are spaced."""
    return {
        priority: RetryPolicy(
            base=timedelta(seconds=of.retry_base_s),
            factor=of.retry_factor,
            cap=timedelta(seconds=of.retry_cap_s),
            tries=of.tries,
        )
        for priority, of in ((priority, settings.priorities.of(priority)) for priority in Priority)
    }


def queue_rules(process: Process, bulkheads: Mapping[Channel, int]) -> list[QueueRule]:
    """What the scheduler must know of each queue."""
    settings = process.settings

    def reserved(queue: QueueKey) -> int:
        """The reserved consumers; the channel's other queues need a connection too."""
        limit = settings.channels[queue.channel].max_consumers or RESERVED_CONSUMERS[queue.priority]
        left = max(1, bulkheads[queue.channel] - len(Priority) + 1)
        return min(RESERVED_CONSUMERS[queue.priority], limit, left)

    return [
        QueueRule(
            queue=queue,
            weight=settings.priorities.of(queue.priority).weight,
            target_wait_s=settings.priorities.of(queue.priority).target_wait_s,
            consumer_rate=settings.channels[queue.channel].consumer_rate,
            max_consumers=settings.channels[queue.channel].max_consumers,
            bulkhead=bulkheads[queue.channel],
            reserved=reserved(queue),
        )
        for queue in process.queues
    ]
