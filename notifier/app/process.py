"""What every process of ours has: store, broker, heartbeat, relay, sweeper, pruner."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from uuid_utils.compat import uuid7

from notifier import __version__
from notifier.adapters.inprocess.broker import open_inprocess_broker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.heartbeat import open_heartbeat
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.adapters.telemetry.looplag import watch_loop
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.relay import Relays
from notifier.domain.controls import BreakerState, Controls
from notifier.domain.notification import Channel, Priority, QueueKey, WorkerId
from notifier.lifecycle import background_task, repeat
from notifier.ports.broker import Broker
from notifier.ports.heartbeat import Figures, QueueFigures
from notifier.recovery import pruner
from notifier.recovery.pruner import Pruner
from notifier.recovery.sweeper import Sweeper
from notifier.scheduling.cluster.membership import Membership
from notifier.scheduling.consumers.pool import ConsumerPool
from notifier.scheduling.gates.breakers import Breakers
from notifier.scheduling.gates.queue_gates import QueueGates
from notifier.settings import Settings

HEARTBEAT_TIMEOUT_S = 2.0
LOOK_EVERY_S = 1.0
IN_PROCESS = ""
"""The broker URL that stands for the broker in this process's memory."""


@dataclass(slots=True, kw_only=True)
class Process:
    """The pieces, and two facts that change: who sends here, and whether the broker answers."""

    settings: Settings
    queues: Sequence[QueueKey]
    metrics: Metrics
    store: PostgresStore
    broker: Broker
    membership: Membership
    relays: Relays
    control_store: PostgresControls
    gates: QueueGates
    pool: ConsumerPool | None = None
    breakers: Breakers | None = None
    is_broker_there: bool = False

    def figures(self) -> Figures:
        """What this process says of itself; nothing while nobody sends here."""
        providers = self.breakers.figures() if self.breakers else {}
        return Figures(queues=self.queue_figures(), providers=providers)

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        """This process's side of every queue."""
        return self.pool.figures() if self.pool else {}

    def has_work(self, queue: QueueKey) -> bool:
        """Whether anything waits there that this process could send."""
        return self.pool is not None and self.pool.has_work(queue)

    def permissions_changed(self) -> None:
        """A queue may take work again, or no more: let relay and scheduler look at once."""
        self.relays.wake()
        if self.pool:
            self.pool.apply_permissions()

    def report_breakers(self, controls: Controls) -> None:
        """Every process shows the same, whether or not it sends."""
        states = {breaker.provider: breaker.state for breaker in controls.breakers}
        for name in {each for names in self.gates.providers.values() for each in names}:
            self.metrics.breaker_changed(name, states.get(name, BreakerState.CLOSED))

    def why_not_ready(self) -> list[str]:
        """What keeps an API process from being ready: it accepts without a broker."""
        return list(self.membership.why_not_ready())

    def why_not_sending(self) -> list[str]:
        """What keeps a worker from being ready."""
        return self.why_not_ready() + ([] if self.is_broker_there else ["rabbitmq: no answer"])

    async def look_at_broker(self) -> None:
        """Note whether the broker answers, and how soon."""
        began = time.monotonic()
        self.is_broker_there = await self.broker.probe()
        if self.is_broker_there:
            self.metrics.dependency_answered("rabbitmq", time.monotonic() - began)
        else:
            self.metrics.dependency_unavailable("rabbitmq")


def queues_of(settings: Settings) -> list[QueueKey]:
    """Every channel at every priority."""
    return [
        QueueKey(Channel(channel), priority)
        for channel in settings.channels
        for priority in Priority
    ]


def connection_settings(
    settings: Settings, *, timeout_s: float | None = None
) -> ConnectionSettings:
    """How to reach Postgres."""
    return ConnectionSettings(
        url=settings.database.url,
        statement_timeout_s=timeout_s or settings.database.statement_timeout_s,
    )


@asynccontextmanager
async def open_process(
    settings: Settings, *, kind: str, stop: asyncio.Event
) -> AsyncIterator[Process]:
    """Everything an API and a worker have in common, at work until `stop`.

    Opens while Postgres or RabbitMQ is away, too: readiness says so until they are there.
    """
    queues, worker = queues_of(settings), WorkerId(uuid7())
    metrics = Metrics(
        queues,
        providers_of(settings),
        version=__version__,
        target_wait_s={each: settings.priorities.of(each).target_wait_s for each in Priority},
    )
    seat = _Seat()
    async with (
        open_store(connection_settings(settings), worker) as store,
        open_heartbeat(
            connection_settings(settings, timeout_s=HEARTBEAT_TIMEOUT_S), worker
        ) as heartbeat,
        open_controls(
            connection_settings(settings, timeout_s=HEARTBEAT_TIMEOUT_S), worker
        ) as control_store,
    ):
        gates = QueueGates(control_store, queues=queues, providers=providers_of(settings))
        membership = Membership(
            heartbeat,
            kind=kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            mine=seat.figures,
            observer=metrics,
        )
        async with (
            background_task(membership.run, "heartbeat"),
            background_task(gates.run, "controls"),
            open_broker(settings, queues, metrics) as broker,
        ):
            relays = Relays(
                store=store,
                broker=broker,
                observer=metrics,
                queues=queues,
                cluster=membership,
                gates=gates,
            )
            process = Process(
                settings=settings,
                queues=queues,
                metrics=metrics,
                store=store,
                broker=broker,
                membership=membership,
                relays=relays,
                control_store=control_store,
                gates=gates,
            )
            seat.process = process
            gates.on_change(process.permissions_changed)
            gates.on_read(process.report_breakers)
            async with asyncio.TaskGroup() as group:
                _look_after(group, process, stop)
                yield process
                process.relays.close()


class _Seat:
    """Where the heartbeat, which comes first, finds the figures of its process."""

    process: Process | None = None

    def figures(self) -> Figures:
        return self.process.figures() if self.process else Figures(queues={}, providers={})


def _look_after(group: asyncio.TaskGroup, process: Process, stop: asyncio.Event) -> None:
    sweep = Sweeper(store=process.store, observer=process.metrics)
    retention = timedelta(days=process.settings.retention.days)
    prune = Pruner(store=process.store, observer=process.metrics, retention=retention)
    group.create_task(process.relays.run(stop), name="relays")
    group.create_task(sweep.run(stop), name="sweeper")
    group.create_task(repeat(prune.run_once, stop, pruner.PRUNE_INTERVAL_S), name="pruner")
    group.create_task(repeat(process.look_at_broker, stop, LOOK_EVERY_S), name="broker watch")
    group.create_task(watch_loop(process.metrics, stop), name="loop watch")


def open_broker(
    settings: Settings, queues: Sequence[QueueKey], metrics: Metrics
) -> AbstractAsyncContextManager[Broker]:
    """RabbitMQ, or the broker in memory where the URL is empty."""
    if settings.broker.url == IN_PROCESS:
        return open_inprocess_broker(queues)
    return open_rabbitmq_broker(
        settings.broker.url,
        queues,
        observer=metrics,
        publish_timeout_s=settings.broker.publish_timeout_s,
    )


def providers_of(settings: Settings) -> Mapping[Channel, Sequence[str]]:
    """The providers that each channel may send through."""
    return {Channel(name): [channel.provider] for name, channel in settings.channels.items()}
