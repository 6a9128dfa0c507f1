"""The accepting side of a process: HTTP server, group commit and direct publish."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog

from notifier.adapters.postgres.events import open_events
from notifier.adapters.postgres.fallbacks import PostgresFallbacks, open_fallbacks
from notifier.adapters.postgres.inbox import open_inboxes
from notifier.adapters.postgres.key_rates import open_key_rates
from notifier.adapters.postgres.keys import PostgresKeys, open_keys
from notifier.adapters.postgres.operations import open_operations
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.receipts import open_receipts
from notifier.adapters.postgres.schedules import PostgresScheduleRuns, open_schedules
from notifier.adapters.postgres.suppressions import open_suppressions
from notifier.adapters.postgres.webhooks import open_webhooks
from notifier.adapters.providers.registry import receipt_verifier
from notifier.api.app import create_api
from notifier.api.auth.gate import KeyAuth
from notifier.api.auth.keyring import Keyring
from notifier.api.auth.rates import KeyRates
from notifier.api.auth.sessions import Sessions
from notifier.api.auth.user_tokens import UserTokens
from notifier.api.events.feed import EventFeed
from notifier.api.http.public_address import path_prefix
from notifier.api.http.server import open_server
from notifier.api.http.stream_slots import StreamSlots
from notifier.api.inbox.feed import InboxFeed
from notifier.api.routes.events import EventSources
from notifier.api.routes.inbox import InboxSources
from notifier.api.rules import AddressKind, ApiRules, ChannelRules, WebhookRules
from notifier.api.schedules.submitting import ScheduledSubmits
from notifier.api.submission.fallback_submits import FallbackSubmits
from notifier.api.submission.preparing import SubmitPreparation
from notifier.api.submission.stored_fields import KNOWN_FIELDS
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.tenant_preparation import TenantPreparation
from notifier.api.templating.filling import TemplateFilling
from notifier.app.process import (
    Process,
    connection_settings,
    event_writing,
    lookup_rules,
    receipt_providers,
)
from notifier.app.providers import provider_of
from notifier.app.queue_rules import explained_rules
from notifier.app.webhooks import call_ttl
from notifier.control.notification_changes import NotificationChanges
from notifier.delivery.accept import Accept
from notifier.delivery.direct_publish import DirectPublishing
from notifier.delivery.fallback_runner import RUN_INTERVAL_S as FALLBACK_INTERVAL_S
from notifier.delivery.fallback_runner import FallbackRunner
from notifier.delivery.receipt_matcher import MATCH_INTERVAL_S, ReceiptMatcher
from notifier.delivery.recipient_cap_check import RecipientCapCheck
from notifier.delivery.schedule_runner import RUN_INTERVAL_S, ScheduleRunner
from notifier.delivery.suppression_check import CHECK_INTERVAL_S, SuppressionCheck
from notifier.delivery.turn_choice import TurnChoice
from notifier.delivery.unsubscribe_links import UnsubscribeLinks
from notifier.domain.errors import StoreError
from notifier.domain.liveness import BEAT_TIMEOUT_S
from notifier.domain.notification import SANDBOX, TEST_CHANNEL, Channel, Priority
from notifier.domain.recipient_caps import RecipientCaps
from notifier.lifecycle import background_task, cancelled_after_stop, repeat
from notifier.ports.keys import SecretReader
from notifier.ports.receipts import MatchingRules, ReceiptVerifier
from notifier.ports.suppressions import SuppressionPasses
from notifier.recovery.suppressor import Suppressor
from notifier.scheduling.deployment_status import DeploymentStatus
from notifier.scheduling.explainer import DeploymentExplainer
from notifier.settings import Settings

LOOKUP_START_INTERVAL_S: Final = 60.0

log = structlog.get_logger(__name__)


class LookupStart:
    """Notes whether this process stores lookups of recipients.

    It is repeated, so that two processes with different settings leave no note: see
    sql/suppressions_scan.sql.
    """

    def __init__(self, passes: SuppressionPasses, *, is_on: bool) -> None:
        self._passes = passes
        self._is_on = is_on

    async def run_once(self) -> None:
        """Note it. A failure is logged: the next one repeats it."""
        try:
            await self._passes.note_lookups(are_kept=self._is_on)
        except StoreError as error:
            log.debug("lookup_start_failed", reason=str(error))


@asynccontextmanager
async def open_api(
    process: Process, *, stop: asyncio.Event, share_port: bool = False
) -> AsyncIterator[int]:
    """Serves the API inside the block and yields its port. See `open_server` for `share_port`.

    Leaving the block answers the requests in flight, then commits the submits that wait for the
    group commit, then ends the direct publishes. Raises ConfigError if the port is in use.
    """
    settings = process.settings
    status = DeploymentStatus(
        store=process.store,
        broker=process.broker,
        cluster=process.membership,
        gates=process.gates,
    )
    slots = StreamSlots()
    async with (
        open_reader(connection_settings(settings)) as reader,
        open_keys(connection_settings(settings, timeout_s=BEAT_TIMEOUT_S)) as keys,
        _key_auth(settings, keys) as auth,
        open_suppressions(
            connection_settings(settings), events=event_writing(settings)
        ) as suppressions,
        open_operations(
            connection_settings(settings),
            keep_keys_s=settings.idempotency.keep_s,
            events=event_writing(settings),
        ) as operations,
        open_schedules(connection_settings(settings), KNOWN_FIELDS) as (schedules, runs),
        _event_sources(process, slots) as events,
        open_fallbacks(connection_settings(settings), KNOWN_FIELDS) as fallbacks,
        open_receipts(
            connection_settings(settings),
            matching_rules(settings),
            events=event_writing(settings),
        ) as (receipts, matching),
        open_webhooks(connection_settings(settings), events=event_writing(settings)) as webhooks,
        open_inboxes(connection_settings(settings)) as inboxes,
        _direct_publishing(process) as publisher,
        asyncio.TaskGroup() as group,
    ):
        check = SuppressionCheck(process.store)
        links = _unsubscribe_links(process, keys)
        accept = Accept(
            store=process.store,
            observer=process.metrics,
            publisher=publisher,
            features=process.membership.features,
            steps=(check, RecipientCapCheck(process.store, recipient_caps(settings)), links),
            turns=_turns(process, auth),
            deadline_s=settings.api.request_deadline_s,
            max_backlog=settings.api.max_backlog,
        )
        group.create_task(repeat(check, stop, CHECK_INTERVAL_S), name="suppression check")
        start = LookupStart(process.store.suppression_passes, is_on=settings.lookups.recipient)
        group.create_task(repeat(start, stop, LOOKUP_START_INTERVAL_S), name="lookup start")
        group.create_task(accept.run(), name="accept")
        group.create_task(
            cancelled_after_stop(accept.watch_backlog(stop), stop), name="backlog watch"
        )
        inbox_feed = InboxFeed(reader=inboxes.reader, slots=slots)
        group.create_task(inbox_feed.run(stop), name="inboxes")
        app = create_api(
            acceptor=accept,
            reader=reader,
            status=status,
            explainer=DeploymentExplainer(
                reader=reader,
                gates=process.gates,
                cluster=process.membership,
                broker=process.broker,
                rules=explained_rules(settings, process.queues),
            ),
            pauses=process.control_store,
            quiet_hours=process.control_store,
            probes=process.control_store,
            features=process.membership.features,
            blobs=process.blobs,
            suppressions=suppressions,
            links=links,
            suppressor=Suppressor(store=process.store.suppression_passes, observer=process.metrics),
            rules=api_rules(settings),
            readiness=process,
            metrics=process.metrics,
            access=keys,
            auth=auth,
            templates=process.templates,
            renderer=process.renderer,
            control=NotificationChanges(store=operations, observer=process.metrics),
            operations=operations,
            schedules=schedules,
            events=events,
            stats=process.stats,
            failure_groups=reader,
            receipts=receipts,
            verifiers=receipt_verifiers(settings),
            observer=process.metrics,
            webhooks=None if events is None else webhooks,
            inbox=InboxSources(
                store=inboxes.store,
                feed=inbox_feed,
                tokens=UserTokens(keys, secrets=_secrets(settings)),
            ),
        )
        matcher = ReceiptMatcher(store=matching, observer=process.metrics)
        group.create_task(repeat(matcher, stop, MATCH_INTERVAL_S), name="receipts")
        # What the stop cuts off is repeated by another process.
        runner = _schedule_runner(process, runs, accept, auth)
        group.create_task(repeat(runner, stop, RUN_INTERVAL_S), name="schedules")
        if events is not None:
            group.create_task(events.feed.run(stop), name="events")
        fallback_runner = _fallback_runner(process, fallbacks, accept, auth)
        group.create_task(repeat(fallback_runner, stop, FALLBACK_INTERVAL_S), name="fallbacks")
        try:
            async with open_server(
                app,
                host=settings.api.host,
                port=settings.api.port,
                grace_s=settings.api.request_deadline_s + 1,
                share_port=share_port,
                prefix=path_prefix(settings.api.public_url),
            ) as port:
                yield port
        finally:
            stop.set()
            accept.close()


def _turns(process: Process, auth: KeyAuth | None) -> TurnChoice:
    """What divides the queues among the tenants."""
    membership = process.membership
    return TurnChoice(
        tenants=None if auth is None else auth.keyring,
        features=membership.features,
        cluster=membership,
    )


def _schedule_runner(
    process: Process, runs: PostgresScheduleRuns, accept: Accept, auth: KeyAuth | None
) -> ScheduleRunner:
    rules = api_rules(process.settings)
    submitter = ScheduledSubmits(
        acceptor=accept,
        preparation=_preparation(process, rules),
        keyring=None if auth is None else auth.keyring,
        rules=rules,
    )
    return ScheduleRunner(store=runs, submitter=submitter, observer=process.metrics)


def _fallback_runner(
    process: Process, fallbacks: PostgresFallbacks, accept: Accept, auth: KeyAuth | None
) -> FallbackRunner:
    rules = api_rules(process.settings)
    preparation = TenantPreparation(
        preparation=_preparation(process, rules),
        keyring=None if auth is None else auth.keyring,
        rules=rules,
    )
    submitter = FallbackSubmits(acceptor=accept, preparation=preparation)
    return FallbackRunner(store=fallbacks, submitter=submitter, observer=process.metrics)


def _preparation(process: Process, rules: ApiRules) -> SubmitPreparation:
    filling = TemplateFilling(
        reader=process.templates, renderer=process.renderer, max_bytes=rules.max_content_bytes
    )
    return SubmitPreparation(rules=rules, filling=filling, blobs=SubmitBlobs(process.blobs, rules))


def _secrets(settings: Settings) -> tuple[bytes, ...]:
    """The secrets of the settings: the first signs, all verify."""
    return tuple(secret.encode() for secret in settings.security.secrets)


def _unsubscribe_links(process: Process, secret: SecretReader) -> UnsubscribeLinks:
    settings = process.settings
    return UnsubscribeLinks(
        hashes=process.store,
        secret=secret,
        secrets=_secrets(settings),
        public_url=settings.api.public_url,
        channels=[
            name
            for name, channel in settings.channels.items()
            if AddressKind(channel.address) is AddressKind.EMAIL
        ],
    )


@asynccontextmanager
async def _key_auth(settings: Settings, keys: PostgresKeys) -> AsyncIterator[KeyAuth | None]:
    """What the API needs to ask for keys; None if it asks for none."""
    if settings.api.auth == "off":
        yield None
        return
    async with open_key_rates(connection_settings(settings)) as store:
        keyring = Keyring(keys)
        rates = KeyRates(store, deadline_s=settings.api.request_deadline_s)
        sessions = Sessions(keys, secrets=_secrets(settings), session_s=settings.security.session_s)
        async with background_task(keyring, "keys"), background_task(rates, "key rates"):
            yield KeyAuth(keyring=keyring, rates=rates, sessions=sessions)


@asynccontextmanager
async def _event_sources(
    process: Process, slots: StreamSlots
) -> AsyncIterator[EventSources | None]:
    """Where the API reads events; None if they are switched off. Streams wait for no page."""
    if not process.settings.events.enabled:
        yield None
        return
    settings = connection_settings(process.settings)
    async with open_events(settings) as reader, open_events(settings) as shared:
        yield EventSources(reader, EventFeed(reader=shared, observer=process.metrics, slots=slots))


@asynccontextmanager
async def _direct_publishing(process: Process) -> AsyncIterator[DirectPublishing]:
    """Publish new rows directly; leaving the block publishes those that were enqueued."""
    publisher = DirectPublishing(
        broker=process.broker,
        observer=process.metrics,
        queues=process.queues,
        cluster=process.membership,
        gates=process.gates,
        backlog=process.leases,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(publisher.run(), name="direct publish")
        try:
            yield publisher
        finally:
            publisher.close()


def recipient_caps(settings: Settings) -> RecipientCaps:
    """Returns the caps of the channels that have one."""
    return {
        Channel(name): cap for name, cap in settings.limits.recipient_per_day.items() if cap > 0
    }


def receipt_verifiers(settings: Settings) -> Mapping[str, ReceiptVerifier]:
    """Returns what verifies the receipts of each provider that sends them. Raises ConfigError."""
    # Only theirs: an API process need not have the secrets of the others.
    made = {
        name: receipt_verifier(name, provider_of(settings, name))
        for name in receipt_providers(settings)
    }
    return {name: verifier for name, verifier in made.items() if verifier is not None}


def matching_rules(settings: Settings) -> MatchingRules:
    """Returns how long receipts wait for their notifications, and the channels of each provider."""
    channels: defaultdict[str, list[str]] = defaultdict(list)
    for name, channel in settings.channels.items():
        channels[channel.provider].append(name)
    return MatchingRules(
        keep_unmatched_s=settings.retention.receipts_unmatched_s, channels=channels
    )


def api_rules(settings: Settings) -> ApiRules:
    """Returns the rules that the API checks requests against."""
    with_receipts = receipt_providers(settings)
    return ApiRules(
        channels={
            name: ChannelRules(
                address=AddressKind(channel.address), has_receipts=channel.provider in with_receipts
            )
            for name, channel in settings.channels.items()
        },
        providers=sorted({channel.provider for channel in settings.channels.values()}),
        default_ttl={
            priority: timedelta(seconds=settings.priorities.of(priority).ttl_s)
            for priority in Priority
        },
        retention=timedelta(days=settings.retention.days),
        max_in_flight=settings.api.max_in_flight,
        request_deadline_s=settings.api.request_deadline_s,
        max_batch=settings.api.max_batch,
        max_content_bytes=settings.api.max_content_bytes,
        max_request_bytes=settings.api.max_request_bytes,
        max_held_bytes=settings.api.max_held_bytes,
        max_attachment_bytes=settings.content.max_attachment_bytes,
        allowed_headers=settings.content.allowed_headers,
        sms_prefixes=settings.limits.sms_prefixes,
        lookups=lookup_rules(settings),
        webhooks=WebhookRules(
            allow_http=settings.webhooks.allow_http,
            allow_private=settings.webhooks.allow_private,
            ttl=call_ttl(settings),
        ),
        public_url=settings.api.public_url,
        trusted_proxies=settings.api.trusted_proxies,
        host=settings.api.host,
        cors_origins=settings.api.cors_origins,
        guards_metrics=settings.api.metrics_auth == "key",
        test_channel=_test_channel(settings),
    )


def _test_channel(settings: Settings) -> str:
    """Where the notifications of test keys go; "" if the settings have no place for them."""
    channel = settings.channels.get(TEST_CHANNEL)
    provider = settings.providers.get(channel.provider, {}) if channel else {}
    return TEST_CHANNEL if provider.get("type") == SANDBOX else ""
