"""The sending side of a process: relays, providers, breakers, attempts, consumers and recovery."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from notifier.adapters.providers.settings import ProviderSettings
from notifier.app.draining import drain, running_attempts, settle_probes
from notifier.app.process import Process
from notifier.app.providers import (
    ReadSettings,
    breaker_rules,
    bulkheads_of,
    connection_bulkheads,
    open_bindings,
    open_provider_rates,
)
from notifier.app.queue_rules import queue_rules, retry_policies
from notifier.app.recovering import start_recovery
from notifier.app.webhooks import open_webhook_calling, with_webhook_provider
from notifier.delivery.attempt import Attempts
from notifier.delivery.delivery_rules import DeliveryRules
from notifier.delivery.files import FileLoader
from notifier.delivery.relay import Relays
from notifier.delivery.templates import TemplateCache, TemplateContents
from notifier.domain.breaker import BreakerRule
from notifier.domain.notification import WEBHOOK_CHANNEL, Channel
from notifier.lifecycle import background_task, uptime_s
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
from notifier.scheduling.rates.bulkheads import Bulkheads
from notifier.scheduling.rates.provider_rates import ProviderRates


@asynccontextmanager
async def open_worker(
    process: Process,
    providers: Mapping[str, ProviderSettings],
    *,
    stop: asyncio.Event,
    reload: ReadSettings | None = None,
) -> AsyncIterator[ConsumerPool]:
    """Publish and send while the block runs. Leaving it sets `stop` and drains; see draining.py.

    With `reload` the settings of a provider are read again after it refused our credentials.
    """
    settings = process.settings
    providers = with_webhook_provider(settings, providers)
    async with AsyncExitStack() as stack:
        calling = await open_webhook_calling(stack, process)
        bindings = await open_bindings(stack, settings, providers, reload)
        if calling is not None:
            bindings = {**bindings, Channel(WEBHOOK_CHANNEL): calling.binding}
        rules = DeliveryRules(bindings=bindings, policies=retry_policies(settings))
        call_limits = connection_bulkheads(process, providers, bindings)
        breakers = _breakers(process, breaker_rules(settings, providers))
        rates = await open_provider_rates(stack, process, providers)
        files = FileLoader(process.blobs, settings.worker.max_held_bytes)
        attempts = _attempts(process, files, rules, breakers, rates)
        await stack.enter_async_context(running_attempts(attempts))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        bulkheads = bulkheads_of(settings, providers)
        queues = queue_rules(settings, process.queues, bulkheads)
        relays = _relays(process)
        process.gates.add_listener(relays)
        async with _open_pool(process, queues, attempts, rates, call_limits) as pool:
            process.sending.start(pool, breakers, call_limits)
            group.create_task(breakers.run(stop), name="breakers")
            group.create_task(_publish(process, relays, stop), name="publishing")
            group.create_task(_announce_drain(process, stop), name="announce drain")
            if calling is not None:
                calling.start(group, stop)
            start_recovery(group, process, relays, rules=rules, attempts=attempts, stop=stop)
            yield pool
            stop.set()
            deadline = time.monotonic() + settings.worker.grace_s
            await drain(pool, deadline)
        await settle_probes(breakers)
        await attempts.finish_recording(deadline)
        if calling is not None:
            await calling.finish()


async def _publish(process: Process, relays: Relays, stop: asyncio.Event) -> None:
    """Publish the queues whose lease this process gets, until `stop`, and release the leases.

    They are released once the last publishes are confirmed, while the consumers still drain.
    """
    leases = process.leases
    async with background_task(leases, "leases"), background_task(relays, "relays"):
        await stop.wait()
        leases.retire()


async def _announce_drain(process: Process, stop: asyncio.Event) -> None:
    """Tell the others at the begin of the stop, so that they hand over no lease to this process."""
    await stop.wait()
    process.sending.start_draining()
    await process.membership.run_once()


def _relays(process: Process) -> Relays:
    return Relays(
        store=process.store,
        broker=process.broker,
        observer=process.metrics,
        queues=process.queues,
        leases=process.leases,
        cluster=process.membership,
        gates=process.gates,
    )


def _attempts(
    process: Process,
    files: FileLoader,
    rules: DeliveryRules,
    breakers: Breakers,
    rates: ProviderRates,
) -> Attempts:
    return Attempts(
        store=process.store,
        files=files,
        observer=process.metrics,
        rules=rules,
        liveness=process.membership,
        holds=process.gates,
        outcome_listeners=(breakers, rates),
        judge=breakers,
        random=random.Random(),  # noqa: S311 jitter, no secret
        send_timeout_s=process.settings.worker.send_timeout_s,
        contents=TemplateContents(
            versions=TemplateCache(process.templates),
            renderer=process.renderer,
            max_bytes=process.settings.api.max_content_bytes,
        ),
    )


def _breakers(process: Process, rules: Mapping[str, BreakerRule]) -> Breakers:
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
        calls=process.sending,
        rules=rules,
        observer=process.metrics,
        clock=time.monotonic,
    )


def _open_pool(
    process: Process,
    rules: list[QueueRule],
    attempts: Attempts,
    rates: ProviderRates,
    call_limits: Bulkheads,
) -> AbstractAsyncContextManager[ConsumerPool]:
    return open_consumer_pool(
        PoolSettings(rules=rules, consumers=process.settings.worker.consumers),
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
            call_limits=call_limits,
        ),
        clock=uptime_s,
        random=random.Random(),  # noqa: S311 jitter, no secret
    )
