"""What every process has: store, broker, heartbeat, gates, leases, sweeper and pruner."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from uuid_utils.compat import uuid7

from notifier import __version__
from notifier.adapters.inprocess.broker import open_inprocess_broker
from notifier.adapters.postgres.access import AccessCheck
from notifier.adapters.postgres.blobs import PostgresBlobs, open_blobs
from notifier.adapters.postgres.campaign_guard import PostgresTagGuard
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.errors import at_start
from notifier.adapters.postgres.event_writing import EventWriting
from notifier.adapters.postgres.heartbeat import PostgresHeartbeat, open_heartbeat
from notifier.adapters.postgres.leases import open_leases
from notifier.adapters.postgres.operation_steps import (
    PostgresOperationSteps,
    open_operation_steps,
)
from notifier.adapters.postgres.stats import PostgresStats, open_stats
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.templates import PostgresTemplates, open_templates
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.adapters.telemetry.looplag import measure_loop_lag
from notifier.adapters.telemetry.metrics import Metrics
from notifier.adapters.templating.renderer import ChildRenderer, open_renderer
from notifier.app import broker_check
from notifier.app.broker_check import BrokerCheck
from notifier.app.large_blocks import return_large_blocks
from notifier.app.sending_side import SendingSide
from notifier.control import campaign_guard, operation_runner
from notifier.control.campaign_guard import CampaignGuard
from notifier.control.operation_runner import OperationRunner
from notifier.domain.campaign_guard import GuardRule
from notifier.domain.deployment_id import DeploymentId
from notifier.domain.errors import StoreError
from notifier.domain.liveness import BEAT_TIMEOUT_S, LEASE_TIMEOUT_S
from notifier.domain.lookups import LookupRules
from notifier.domain.notification import Channel, Priority, QueueKey, WorkerId, priorities_of
from notifier.domain.stats import Step
from notifier.lifecycle import background_task, cancelled_after_stop, repeat
from notifier.ports.broker import Broker
from notifier.recovery import (
    collapser,
    configuration_check,
    loss_check,
    lost_workers,
    pruner,
    scrubber,
    stats_roll_up,
    suppressor,
    turn_return,
)
from notifier.recovery.collapser import Collapser
from notifier.recovery.configuration_check import ConfigurationCheck
from notifier.recovery.loss_check import LossCheck
from notifier.recovery.lost_workers import LostWorkers
from notifier.recovery.pruner import Pruner
from notifier.recovery.scrubber import Scrubber
from notifier.recovery.stats_roll_up import StatsRollUp
from notifier.recovery.suppressor import Suppressor
from notifier.recovery.sweeper import Sweeper
from notifier.recovery.turn_return import TurnReturn
from notifier.scheduling.cluster.lease_keeper import LeaseKeeper
from notifier.scheduling.cluster.membership import Membership, ProcessIdentity
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from notifier.settings import Settings

IN_PROCESS = ""
"""The broker URL that selects the broker in this process's memory."""
API = "api"
"""The kind of a process that only accepts notifications."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The parts of an open process. `sending` is empty in an API process."""

    settings: Settings
    metrics: Metrics
    store: PostgresStore
    broker: Broker
    broker_check: BrokerCheck
    membership: Membership
    control_store: PostgresControls
    gates: QueueGates
    leases: LeaseKeeper
    sending: SendingSide
    deployment: DeploymentId
    blobs: PostgresBlobs
    templates: PostgresTemplates
    renderer: ChildRenderer
    operation_steps: PostgresOperationSteps
    stats: PostgresStats
    tag_guard: PostgresTagGuard

    @property
    def queues(self) -> Sequence[QueueKey]:
        """Every channel at every priority."""
        return self.gates.queues

    def why_not_ready(self) -> list[str]:
        """What keeps an API process from being ready, one sentence each.

        An API process needs no broker: it accepts notifications without one.
        """
        return list(self.membership.why_not_ready())


class WorkerReadiness:
    """Implements ports.health.ReadinessCheck for a worker, which also needs the broker."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def why_not_ready(self) -> list[str]:
        """What keeps a worker from being ready, one sentence each."""
        is_broker_missing = not self._process.broker_check.is_available
        return self._process.why_not_ready() + ["rabbitmq: no answer"] * is_broker_missing


@asynccontextmanager
async def open_process(
    settings: Settings, *, kind: str, stop: asyncio.Event
) -> AsyncIterator[Process]:
    """Open what API and worker have in common, and run it until `stop`.

    `kind` is `api`, `worker` or `dev`. Where leases may be held, open_worker runs their keeper.
    Opens also while Postgres or RabbitMQ is unreachable: then the process is not ready. Raises
    ConfigError if Postgres refuses to let it work.
    """
    return_large_blocks()
    async with AsyncExitStack() as stack:
        process = await _open_parts(stack, settings, kind)
        process.gates.add_listener(process.sending)
        process.gates.add_hold_listener(process.sending)
        async with asyncio.TaskGroup() as group:
            _start_background(group, process, stop)
            if kind == API:
                group.create_task(process.leases.run(stop), name="leases")
            yield process


async def _open_parts(stack: AsyncExitStack, settings: Settings, kind: str) -> Process:
    """Open the parts in the order in which they need each other; the stack closes them."""
    queues, providers, worker = queues_of(settings), providers_of(settings), WorkerId(uuid7())
    sending, metrics = SendingSide(), _metrics(settings)
    short_timeout = connection_settings(settings, timeout_s=BEAT_TIMEOUT_S)
    access = AccessCheck(short_timeout)
    await _check_access(access)
    store = await stack.enter_async_context(
        open_store(
            connection_settings(settings),
            worker,
            keeps_references=lookup_rules(settings).reference,
            events=event_writing(settings),
        )
    )
    heartbeat = await stack.enter_async_context(open_heartbeat(short_timeout, worker, access))
    control_store = await stack.enter_async_context(
        open_controls(short_timeout, worker, events=event_writing(settings))
    )
    gates = QueueGates(
        control_store, queues=queues, providers=providers, probes=Probes(), observer=metrics
    )
    membership = _membership(heartbeat, kind, sending, metrics)
    await stack.enter_async_context(background_task(membership, "heartbeat"))
    await stack.enter_async_context(background_task(gates, "controls"))
    leases = await stack.enter_async_context(
        open_leases(connection_settings(settings, timeout_s=LEASE_TIMEOUT_S), worker, queues)
    )
    deployment = DeploymentId()
    broker = await stack.enter_async_context(open_broker(settings, queues, metrics, deployment))
    check = BrokerCheck(broker, metrics)
    # None connects or starts anything before the first file or template.
    blobs = await stack.enter_async_context(open_blobs(connection_settings(settings)))
    templates = await stack.enter_async_context(open_templates(connection_settings(settings)))
    renderer = await stack.enter_async_context(open_renderer())
    steps = await stack.enter_async_context(
        open_operation_steps(connection_settings(settings), events=event_writing(settings))
    )
    stats, tag_guard = await stack.enter_async_context(
        open_stats(
            connection_settings(settings), _kept_stats(settings), events=event_writing(settings)
        )
    )
    return Process(
        settings=settings,
        metrics=metrics,
        store=store,
        broker=broker,
        broker_check=check,
        membership=membership,
        control_store=control_store,
        gates=gates,
        leases=LeaseKeeper(
            store=leases,
            worker=worker,
            workers=membership,
            broker=check,
            observer=metrics,
            may_hold=kind != API,
        ),
        sending=sending,
        deployment=deployment,
        blobs=blobs,
        templates=templates,
        renderer=renderer,
        operation_steps=steps,
        stats=stats,
        tag_guard=tag_guard,
    )


def _guard_rule(settings: Settings) -> GuardRule:
    """When a tag is paused because providers refuse too much of it."""
    guard = settings.guard
    return GuardRule(guard.refused_share, guard.least_results, timedelta(seconds=guard.window_s))


def _kept_stats(settings: Settings) -> Mapping[Step, int]:
    """For how many days the statistics of each step are kept."""
    return {
        Step.MINUTE: settings.retention.stats_minutes_days,
        Step.HOUR: settings.retention.stats_hours_days,
        Step.DAY: settings.retention.stats_days_days,
    }


async def _check_access(access: AccessCheck) -> None:
    """Raise ConfigError for what an operator must mend. Without Postgres the heartbeat checks."""
    try:
        with at_start():
            await access.run_once()
    except StoreError as error:
        log.warning("database_unavailable", reason=str(error))


def _metrics(settings: Settings) -> Metrics:
    return Metrics(
        queues_of(settings),
        providers_of(settings),
        version=__version__,
        target_wait_s={
            priority: settings.priorities.of(priority).target_wait_s for priority in Priority
        },
    )


def _membership(
    heartbeat: PostgresHeartbeat, kind: str, sending: SendingSide, metrics: Metrics
) -> Membership:
    identity = ProcessIdentity(
        id=heartbeat.worker, kind=kind, host=socket.gethostname(), pid=os.getpid()
    )
    return Membership(heartbeat, identity=identity, own=sending, observer=metrics)


def _start_background(group: asyncio.TaskGroup, process: Process, stop: asyncio.Event) -> None:
    sweeper = Sweeper(store=process.store, observer=process.metrics)
    suppressing = Suppressor(store=process.store.suppression_passes, observer=process.metrics)
    returning = TurnReturn(store=process.store, features=process.membership.features)
    group.create_task(repeat(returning, stop, turn_return.RETURN_INTERVAL_S), name="turn return")
    operations = OperationRunner(steps=process.operation_steps, observer=process.metrics)
    if process.settings.events.enabled:
        lost = LostWorkers(store=process.store, processes=process.membership)
        group.create_task(repeat(lost, stop, lost_workers.CHECK_INTERVAL_S), name="lost workers")
    losses = LossCheck(store=process.store, observer=process.metrics)
    pruning = Pruner(
        store=process.store,
        observer=process.metrics,
        retention=timedelta(days=process.settings.retention.days),
        audit_retention=timedelta(days=process.settings.retention.audit_days),
        keep_keys=timedelta(seconds=process.settings.idempotency.keep_s),
        keep_event_days=process.settings.retention.events_days,
    )
    group.create_task(cancelled_after_stop(sweeper.run(stop), stop), name="sweeper")
    collapsing = Collapser(store=process.store, observer=process.metrics)
    group.create_task(repeat(collapsing, stop, collapser.COLLAPSE_INTERVAL_S), name="collapser")
    group.create_task(repeat(suppressing, stop, suppressor.SUPPRESS_INTERVAL_S), name="suppressor")
    group.create_task(
        repeat(operations, stop, operation_runner.CHECK_INTERVAL_S), name="operations"
    )
    group.create_task(repeat(losses, stop, loss_check.LOSS_CHECK_INTERVAL_S), name="loss check")
    counting = StatsRollUp(store=process.stats, observer=process.metrics)
    group.create_task(repeat(counting, stop, stats_roll_up.ROLL_UP_INTERVAL_S), name="stats")
    if process.settings.guard.refused_share:
        guard = CampaignGuard(
            guard=process.tag_guard, rule=_guard_rule(process.settings), observer=process.metrics
        )
        group.create_task(
            repeat(guard, stop, campaign_guard.JUDGE_INTERVAL_S), name="campaign guard"
        )
    checking = ConfigurationCheck(
        store=process.store,
        names=process.gates,
        deployment=process.deployment,
        observer=process.metrics,
    )
    group.create_task(
        repeat(checking, stop, configuration_check.CONFIGURATION_CHECK_INTERVAL_S),
        name="configuration check",
    )
    scrubbing = Scrubber(
        store=process.operation_steps.contents,
        keep_s={
            priority: process.settings.retention.content_s.of(priority) for priority in Priority
        },
    )
    group.create_task(repeat(scrubbing, stop, scrubber.SCRUB_INTERVAL_S), name="scrubber")
    group.create_task(repeat(pruning, stop, pruner.PRUNE_INTERVAL_S), name="pruner")
    group.create_task(
        repeat(process.broker_check, stop, broker_check.CHECK_INTERVAL_S),
        name="broker check",
    )
    group.create_task(measure_loop_lag(process.metrics, stop), name="loop lag")


def open_broker(
    settings: Settings,
    queues: Sequence[QueueKey],
    metrics: Metrics,
    deployment: DeploymentId | None = None,
) -> AbstractAsyncContextManager[Broker]:
    """Open RabbitMQ, or the broker in memory if the URL is empty."""
    if settings.broker.url == IN_PROCESS:
        return open_inprocess_broker(queues)
    return open_rabbitmq_broker(
        settings.broker.url,
        queues,
        observer=metrics,
        deployment=deployment,
        publish_timeout_s=settings.broker.publish_timeout_s,
    )


def queues_of(settings: Settings) -> list[QueueKey]:
    """Every channel at each of its priorities."""
    return [
        QueueKey(Channel(channel), priority)
        for channel in settings.channels
        for priority in priorities_of(channel)
    ]


def event_writing(settings: Settings) -> EventWriting:
    """Whether statements write events."""
    return EventWriting(is_on=settings.events.enabled)


def lookup_rules(settings: Settings) -> LookupRules:
    """By what notifications can be found."""
    lookups = settings.lookups
    return LookupRules(
        recipient=lookups.recipient,
        tag=lookups.tag,
        reference=lookups.reference or bool(receipt_providers(settings)),
        metadata_keys=lookups.metadata_keys,
    )


def receipt_providers(settings: Settings) -> Sequence[str]:
    """The providers of channels that send receipts. These name the provider's ids of messages."""
    used = sorted({channel.provider for channel in settings.channels.values()})
    return [name for name in used if settings.providers.get(name, {}).get("receipts_secret")]


def providers_of(settings: Settings) -> Mapping[Channel, Sequence[str]]:
    """The names of the providers that each channel sends through."""
    return {Channel(name): [channel.provider] for name, channel in settings.channels.items()}


def connection_settings(
    settings: Settings, *, timeout_s: float | None = None
) -> ConnectionSettings:
    """How to connect to Postgres; `timeout_s` replaces the statement time-out of the settings."""
    return ConnectionSettings(
        url=settings.database.url,
        statement_timeout_s=timeout_s or settings.database.statement_timeout_s,
    )
