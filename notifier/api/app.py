"""Builds the ASGI app from the route table and the ports behind it."""

from __future__ import annotations

from collections.abc import Mapping

from litestar import Litestar

from notifier.api.auth.gate import Gate, KeyAuth
from notifier.api.docs.openapi import openapi_document
from notifier.api.docs.reference import ReferenceRoutes
from notifier.api.http.held_bytes import HeldBytes
from notifier.api.http.problems import handle_exception
from notifier.api.http.public_address import PublicAddress
from notifier.api.routes.audit import AuditRoutes
from notifier.api.routes.binding import bind_routes
from notifier.api.routes.blobs import BlobRoutes
from notifier.api.routes.control import ControlRoutes
from notifier.api.routes.events import EventRoutes, EventSources
from notifier.api.routes.explanation import ExplanationRoutes
from notifier.api.routes.failure_groups import FailureGroupRoutes
from notifier.api.routes.failures import FailureRoutes
from notifier.api.routes.health import HealthRoutes
from notifier.api.routes.inbox import InboxRoutes, InboxSources
from notifier.api.routes.keys import KeyRoutes
from notifier.api.routes.notifications import NotificationRoutes
from notifier.api.routes.operations import OperationRoutes
from notifier.api.routes.pauses import PauseRoutes
from notifier.api.routes.preview import PreviewRoutes
from notifier.api.routes.providers import ProviderRoutes
from notifier.api.routes.queues import QueueRoutes
from notifier.api.routes.quiet_hours import QuietHoursRoutes
from notifier.api.routes.receipts import ReceiptRoutes
from notifier.api.routes.schedules import ScheduleRoutes
from notifier.api.routes.session import SessionRoutes
from notifier.api.routes.stats import StatsRoutes
from notifier.api.routes.suppressions import SuppressionRoutes
from notifier.api.routes.table import ROUTES
from notifier.api.routes.templates import TemplateRoutes
from notifier.api.routes.tenants import TenantRoutes
from notifier.api.routes.unsubscribe import UnsubscribeRoutes
from notifier.api.routes.webhooks import WebhookRoutes
from notifier.api.routes.workers import WorkerRoutes
from notifier.api.rules import ApiRules
from notifier.api.submission.preparing import SubmitPreparation
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.templating.filling import TemplateFilling
from notifier.ports.acceptor import Acceptor
from notifier.ports.blobs import BlobStore
from notifier.ports.controls import PauseStore, ProbeStore, QuietHoursStore
from notifier.ports.failures import FailureGroupReader
from notifier.ports.health import MetricsSource, ReadinessCheck
from notifier.ports.heartbeat import FeatureCheck
from notifier.ports.keys import AccessStore
from notifier.ports.observer import ReceiptObserver
from notifier.ports.operations import NotificationControl, OperationStore
from notifier.ports.queries import Explainer, Reader, StatusReader
from notifier.ports.receipts import ReceiptStore, ReceiptVerifier
from notifier.ports.schedules import ScheduleStore
from notifier.ports.stats import StatsReader
from notifier.ports.suppressions import SuppressionPort, UnsubscribeReader, WaitingSuppressor
from notifier.ports.templates import TemplateRenderer, TemplateStore
from notifier.ports.webhooks import WebhookStore


def create_api(
    *,
    acceptor: Acceptor,
    reader: Reader,
    status: StatusReader,
    explainer: Explainer,
    pauses: PauseStore,
    quiet_hours: QuietHoursStore,
    probes: ProbeStore,
    features: FeatureCheck,
    blobs: BlobStore,
    suppressions: SuppressionPort,
    suppressor: WaitingSuppressor,
    links: UnsubscribeReader,
    rules: ApiRules,
    readiness: ReadinessCheck,
    metrics: MetricsSource,
    access: AccessStore,
    auth: KeyAuth | None,
    templates: TemplateStore,
    renderer: TemplateRenderer,
    control: NotificationControl,
    operations: OperationStore,
    schedules: ScheduleStore,
    events: EventSources | None,
    stats: StatsReader,
    failure_groups: FailureGroupReader,
    receipts: ReceiptStore,
    verifiers: Mapping[str, ReceiptVerifier],
    observer: ReceiptObserver,
    webhooks: WebhookStore | None,
    inbox: InboxSources,
) -> Litestar:
    """Makes the ASGI app; without `auth` it asks for no key, and without `events` has none.

    Raises LookupError if the route table does not match the handlers.
    """
    address = PublicAddress(rules.public_url, rules.trusted_proxies)
    gate = Gate(
        auth,
        address,
        public_url=rules.public_url,
        host=rules.host,
        guards_metrics=rules.guards_metrics,
        user_tokens=inbox.tokens,
        cross_origins=rules.cors_origins,
    )
    held, submit_blobs = HeldBytes(rules.max_held_bytes), SubmitBlobs(blobs, rules)
    filling = TemplateFilling(
        reader=templates, renderer=renderer, max_bytes=rules.max_content_bytes
    )
    preparation = SubmitPreparation(rules=rules, filling=filling, blobs=submit_blobs)
    resources = (
        NotificationRoutes(
            acceptor=acceptor,
            reader=reader,
            rules=rules,
            address=address,
            gate=gate,
            blobs=submit_blobs,
            held=held,
            filling=filling,
            preparation=preparation,
        ),
        ControlRoutes(reader=reader, control=control, rules=rules),
        OperationRoutes(store=operations, features=features, rules=rules, address=address),
        BlobRoutes(blobs=submit_blobs, rules=rules, held=held, gate=gate),
        PreviewRoutes(
            filling=filling,
            suppressions=suppressions,
            quiet_hours=quiet_hours,
            blobs=submit_blobs,
            rules=rules,
            gate=gate,
            preparation=preparation,
        ),
        TemplateRoutes(store=templates, renderer=renderer, rules=rules, gate=gate),
        ExplanationRoutes(explainer=explainer, rules=rules),
        ScheduleRoutes(
            store=schedules,
            preparation=preparation,
            rules=rules,
            gate=gate,
        ),
        EventRoutes(sources=events, rules=rules, gate=gate),
        WebhookRoutes(
            store=webhooks,
            acceptor=acceptor,
            features=features,
            rules=rules,
            gate=gate,
            address=address,
        ),
        InboxRoutes(sources=inbox, rules=rules, gate=gate),
        FailureRoutes(reader=reader, rules=rules, address=address),
        QueueRoutes(status=status, rules=rules),
        ProviderRoutes(status=status, probes=probes, rules=rules),
        WorkerRoutes(reader=reader, rules=rules),
        PauseRoutes(status=status, store=pauses, features=features, gate=gate, rules=rules),
        QuietHoursRoutes(store=quiet_hours, features=features, rules=rules),
        SuppressionRoutes(store=suppressions, suppressor=suppressor, rules=rules, gate=gate),
        UnsubscribeRoutes(
            links=links, store=suppressions, suppressor=suppressor, gate=gate, rules=rules
        ),
        ReceiptRoutes(store=receipts, verifiers=verifiers, observer=observer, rules=rules),
        HealthRoutes(readiness=readiness, metrics=metrics),
        KeyRoutes(store=access, rules=rules, auth=auth),
        TenantRoutes(store=access, rules=rules),
        AuditRoutes(store=access, rules=rules),
        SessionRoutes(gate=gate, rules=rules, address=address),
        StatsRoutes(store=stats, rules=rules),
        FailureGroupRoutes(reader=failure_groups, rules=rules),
        ReferenceRoutes(openapi_document(ROUTES, rules), address),
    )
    return Litestar(
        route_handlers=bind_routes(ROUTES, resources, gate),
        exception_handlers={Exception: handle_exception},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
